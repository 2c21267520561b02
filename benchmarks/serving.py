"""The server under load, beside the runtime in a loop: `python benchmarks/serving.py`.

    capacity  requests a second of the runtime itself, in this process, for the same image and options
    overhead  median of one client's requests less the runtime's part in each, which the server says
    load      twice the capacity is offered for a minute by Locust on loopback: what was answered, how fast, and the
              server's memory a quarter of the way through and at the end

Locust needs a process of its own that takes some of the same cores: throughput is a lower bound.
"""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
import typer

import runtime
from benchmarks.timing import machine
from runtime.commands import one_sentence_errors, say
from runtime.serving.app import Service
from runtime.serving.body import Upload
from runtime.serving.options import Limits, Options

_IMAGE = Path("examples/chair.png")
_USERS = 40
_LOCUSTFILE = """
import os
from locust import FastHttpUser, constant_throughput, task

BODY = open(os.environ["IMAGE"], "rb").read()


class Visitor(FastHttpUser):
    wait_time = constant_throughput(float(os.environ["EACH"]))

    @task
    def reconstruct(self):
        with self.client.post(
            "/v1/reconstructions?seed=1&size=128", data=BODY, headers={"Content-Type": "image/png"}, name="reconstruct",
            catch_response=True,
        ) as answer:
            # Turned away by a full queue is an answer; it is counted apart.
            if answer.status_code in (429, 503):
                answer.request_meta["name"] = "turned away"
                answer.success()
"""


def in_process(runs: int, threads: int | None) -> list[float]:
    """Seconds of each call of the runtime, as the server makes it."""
    service, times = Service(runtime.load(threads=threads), Limits()), []
    for _ in range(runs + 2):
        start = time.perf_counter()
        service.reconstruct(Upload(_IMAGE.read_bytes()), Options(size=128), 1, lambda: False)
        times.append(time.perf_counter() - start)
    service.rt.close()
    return times[2:]


class Server:
    """A server of its own process."""

    def __init__(self, threads: int | None) -> None:
        more = [] if threads is None else ["--threads", str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime", "serve", "--port", "0", *more], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", self.process.stdout.readline())
        assert found is not None
        self.address = found[0]
        while httpx.get(f"{self.address}/readyz").status_code != 200:
            time.sleep(0.1)

    def memory(self) -> float:
        """Resident MiB."""
        text = httpx.get(f"{self.address}/metrics", timeout=30).text
        found = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
        assert found is not None
        return float(found[1]) / 2**20


def quiet(server: Server, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of one client's requests, one after another, and of the runtime's part in each, as the server says."""
    body, asked, worked = _IMAGE.read_bytes(), [], []
    with httpx.Client(base_url=server.address, headers={"Content-Type": "image/png"}) as client:
        for _ in range(runs + 2):
            start = time.perf_counter()
            answer = client.post("/v1/reconstructions", params={"seed": 1, "size": 128}, content=body)
            asked.append(time.perf_counter() - start)
            found = re.search(r"total;dur=([\d.]+)", answer.raise_for_status().headers["server-timing"])
            assert found is not None
            worked.append(float(found[1]) / 1e3)
    return asked[2:], worked[2:]


def loaded(server: Server, rate: float, seconds: int) -> dict[str, Any]:
    """Offers `rate` requests a second, and says what came of them."""
    with tempfile.TemporaryDirectory() as folder:
        file, prefix = Path(folder, "locustfile.py"), Path(folder, "load")
        file.write_text(_LOCUSTFILE)
        environment = os.environ | {"IMAGE": str(_IMAGE.resolve()), "EACH": f"{rate / _USERS}"}
        memory: list[float] = []

        def watch() -> None:
            time.sleep(seconds / 4)
            memory.append(server.memory())

        watching = threading.Thread(target=watch)
        watching.start()
        subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--host", server.address,
             "-u", str(_USERS), "-r", str(_USERS), "-t", f"{seconds}s", "--csv", str(prefix), "--loglevel", "ERROR"],
            env=environment, check=False, capture_output=True,
        )  # fmt: skip
        watching.join()
        memory.append(server.memory())
        table = Path(f"{prefix}_stats.csv").read_text().splitlines()
        rows = {row["Name"]: row for row in csv.DictReader(table)}
    accepted, away = rows["reconstruct"], rows.get("turned away")
    return {
        "offered_per_second": rate,
        "accepted": int(accepted["Request Count"]),
        "failed": int(rows["Aggregated"]["Failure Count"]),
        "turned_away": int(away["Request Count"]) if away else 0,
        "accepted_per_second": float(accepted["Requests/s"]),
        "median_ms": float(accepted["50%"]),
        "p99_ms": float(accepted["99%"]),
        "memory_mib": memory,
    }


@one_sentence_errors()
def main(
    seconds: Annotated[int, typer.Option(help="Of the load.", min=4)] = 60,
    runs: Annotated[int, typer.Option(help="Of the quiet measurements.", min=1)] = 40,
    threads: Annotated[int | None, typer.Option(help="Of the runtime; all cores by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
) -> None:
    """Measures the server's overhead, and what it does under twice its capacity."""
    server = Server(threads)
    try:
        asked, worked = quiet(server, runs)
        own = in_process(runs, threads)
        capacity = 1 / statistics.mean(own)
        found = loaded(server, 2 * capacity, seconds)
    finally:
        server.process.terminate()
        server.process.wait(90)
    found |= {
        "machine": machine(),
        "capacity_per_second": capacity,
        "overhead_ms": 1e3 * statistics.median(a - w for a, w in zip(asked, worked, strict=True)),
        "share_of_capacity": found["accepted_per_second"] / capacity,
    }
    say(json.dumps(found, indent=1))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)

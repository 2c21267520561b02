"""Requests a second through Ray Serve by the number of replicas: `python benchmarks/cluster.py` (extra `cluster`).

Each replica has one thread. Twice as many clients as replicas ask again and again, on the same machine; each of them
waits for its answer. The runtime itself in a loop, with one thread, is the row to compare with.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import ray
import typer
from ray import serve
from rich.console import Console
from rich.table import Table

import runtime
from runtime.serving.client import Client
from runtime.serving.cluster import ClusterOptions, build

IMAGE = Path("examples/chair.png")


def in_a_loop(seconds: float) -> float:
    """Images a second of the runtime itself with one thread."""
    with runtime.load(threads=1) as rt:
        rt.render(IMAGE, projected=True, silhouette=True)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            rt.render(IMAGE, projected=True, silhouette=True)
            count += 1
        return count / (time.perf_counter() - started)


def through_ray(address: str, clients: int, seconds: float) -> tuple[float, list[float], int]:
    """Answers a second, the seconds of each, and the bytes that a request and its answer have."""
    took: list[float] = []
    sizes = [0]
    end = time.perf_counter() + seconds

    def ask() -> None:
        with Client(address) as client:
            while time.perf_counter() < end:
                begun = time.perf_counter()
                answer = client.reconstruct(IMAGE, seed=0, size=128)
                took.append(time.perf_counter() - begun)
                sizes[0] = IMAGE.stat().st_size + len(answer.content)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took) / (time.perf_counter() - started), took, sizes[0]


def main(
    replicas: Annotated[list[int], typer.Option(help="Numbers of replicas.")] = [1, 2, 4],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="Of each row.")] = 20.0,
) -> None:
    """Measures replicas of one thread each."""
    table = Table("", "a second", "p50 (s)", "p99 (s)")
    table.add_row("the runtime in a loop, one thread", f"{in_a_loop(seconds):.2f}", "", "")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(num_cpus=max(replicas), include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    size = 0
    for number in replicas:
        serve.run(build(ClusterOptions(replicas=number, threads=1, open_to_all=True)), name="app", route_prefix="/")
        rate, took, size = through_ray(f"http://127.0.0.1:{port}", 2 * number, seconds)
        row = (f"{rate:.2f}", *(f"{np.percentile(took, q):.2f}" for q in (50, 99)))
        table.add_row(f"{number} replicas, {2 * number} clients", *row)
    serve.shutdown()
    ray.shutdown()
    console = Console()
    console.print(table)
    console.print(f"a request and its answer: {size / 1024:.0f} KiB")


if __name__ == "__main__":
    typer.run(main)

"""The goals on a GPU: `python benchmarks/gpu.py --bundle DIR`, DIR being the medium preset's, with engines beside it.

    latency     a decoded image in host memory to the drawn one there: batch 1, four steps, 128x128, 64 samples a ray
    throughput  16 images at once to their triplanes in four steps, as a share of the machine's matrix product: only
                coarse stage and steps count as work, while what goes to the GPU and back is in the time

The weights are those of `python export/to_onnx.py --preset medium`: random, which changes no time. Every row once a
round, in alternating order, each timed call right after one that is not. Without a GPU the same rows run on the CPU,
as a rehearsal.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

import runtime
from benchmarks.baselines import Ours, PyTorch
from benchmarks.timing import by_turns, ceilings, gflop_of, machine, summary
from export.graphs import graph_definitions
from export.to_onnx import untrained_model
from model import WaveletTriplaneDiffusion
from runtime.bundle import load_bundle
from runtime.commands import one_sentence_errors
from runtime.preprocessing import prepare_image

STEPS, SIZE, SAMPLES, PICTURES = 4, 128, 64, 16
# Of p50 in ms; of the matrix product in bfloat16.
GOAL_MS, GOAL_SHARE = 5.0, 0.3
_console = Console(stderr=True)


def measure(
    model: WaveletTriplaneDiffusion, bundle: Path, image: Path, rounds: int, compiled: bool, pictures: int = PICTURES
) -> dict[str, Any]:
    """Times every row; returns what the JSON file holds.

    Args:
        model: in evaluation.
        bundle: of its export.
        image: the image; decoded once, outside the times.
        rounds: timed calls of each row.
        compiled: also torch.compile, at its best mode.
        images: at once, for the throughput.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_bundle(bundle)
    with Image.open(image) as opened:
        decoded: Any = np.asarray(opened.convert("RGBA"))
    rows: dict[str, Any] = {}
    for bfloat16, name in ((False, "float32"), (True, "bfloat16")):
        rows[f"PyTorch eager {name}"] = PyTorch(model, loaded, bfloat16, False, device)
        if compiled:
            rows[f"torch.compile {name}"] = PyTorch(model, loaded, bfloat16, True, device)
    for backend in ("tensorrt", "cuda") if device == "cuda" else ("cpu",):
        for precision in loaded.precisions:
            try:
                rows[f"ours, {backend} {precision}"] = Ours(bundle, backend, precision)
            except runtime.BackendError as error:
                _console.print(f"left out: ours, {backend} {precision}: {error.cause}", soft_wrap=True)
    calls = {
        name: (lambda row=row: row.view(row.triplane(decoded, STEPS), SIZE, SAMPLES)) for name, row in rows.items()
    }
    ours = {name: row.runtime for name, row in rows.items() if isinstance(row, Ours)}
    try:
        with _console.status("timing") as status:
            seconds = by_turns(_running(calls), rounds, 3, True, status.update)
            work = _running({name: _many(rt, decoded, pictures) for name, rt in ours.items()})
            together = by_turns(work, max(1, rounds // 3), 1, True, status.update)
    finally:
        for rt in ours.values():
            rt.close()
    graphs = graph_definitions(model)
    gflop = pictures * (gflop_of(graphs["coarse"]) + STEPS * gflop_of(graphs["diffusion_step"]))
    return {
        "machine": machine(),
        "device": device,
        "ceilings": ceilings(device),
        "gflop": gflop,
        "latency": [{"row": name, **summary(each)} for name, each in seconds.items()],
        "throughput": [
            {"row": name, **summary(each), "gflops": gflop / float(np.median(each))} for name, each in together.items()
        ],
    }


def _running(calls: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """Those that run: one that fails is named, and does not take the others' figures with it."""
    found = {}
    for name, call in calls.items():
        try:
            call()
            found[name] = call
        except Exception as error:  # Whatever a compiler, a driver or too little memory may raise.
            _console.print(f"left out: {name}: {type(error).__name__}: {str(error)[:300]}", soft_wrap=True)
    return found


def _many(rt: runtime.Runtime, decoded: Any, pictures: int) -> Any:
    """Coarse stage and loop of many images at once."""
    bundle = rt.bundle
    images = np.repeat(prepare_image(decoded, bundle.image_size, bundle.framing)[None], pictures, axis=0)
    plan = rt.plan(STEPS)
    return lambda: rt.backend.triplanes(images, plan, [0] * pictures)


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the tables, and what of the goals is met."""
    title = "a decoded picture to the drawn one"
    table = Table("row", "p50 (ms)", "p90", "p99", "n", title=title, title_justify="left")
    rows = sorted(report["latency"], key=lambda row: row["p50_ms"])
    for row in rows:
        table.add_row(row["row"], *(f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms", "p99_ms")), str(row["n"]))
    console.print(table)
    table = Table("row", "p50 (ms)", "TFLOP/s", "of the bfloat16 product", title="many at once", title_justify="left")
    best = report["ceilings"]["matmul_bfloat16_gflops"]
    for row in report["throughput"]:
        table.add_row(row["row"], f"{row['p50_ms']:.1f}", f"{row['gflops'] / 1e3:.2f}", f"{row['gflops'] / best:.0%}")
    console.print(table)
    ours = min((row["p50_ms"] for row in rows if row["row"].startswith("ours")), default=float("inf"))
    # Without a peer nothing is ahead of one.
    peer = min((row["p50_ms"] for row in rows if not row["row"].startswith("ours")), default=0.0)
    share = max((row["gflops"] / best for row in report["throughput"]), default=0.0)
    for said, met in (
        (f"latency {ours:.2f} ms, goal {GOAL_MS:g} ms", ours <= GOAL_MS),
        (f"{peer / ours:.2f} times the fastest peer, goal 1", peer >= ours),
        (f"{share:.0%} of the matrix product, goal {GOAL_SHARE:.0%}", share >= GOAL_SHARE),
    ):
        where = "" if report["device"] == "cuda" else ", a rehearsal on the CPU"
        console.print(f"{said}: {'met' if met else 'MISSED'}{where}", highlight=False, soft_wrap=True)


@one_sentence_errors()
def main(
    bundle: Annotated[Path, typer.Option(help="What export/to_onnx.py --preset medium wrote.")],
    image: Annotated[Path, typer.Option(help="The picture.")] = Path("examples/chair.png"),
    preset: Annotated[str, typer.Option(help="The bundle's.")] = "medium",
    rounds: Annotated[int, typer.Option(help="Timed calls of each row.", min=1)] = 30,
    compiled: Annotated[bool, typer.Option(help="Also torch.compile, which takes minutes to compile.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Writes every row, with raw samples.")] = None,
) -> None:
    """Times the runtime on a GPU beside PyTorch and torch.compile there."""
    warnings.simplefilter("ignore", runtime.UntrainedWarning)
    report = measure(untrained_model(preset).eval(), bundle, image, rounds, compiled)
    show(report, Console())
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)

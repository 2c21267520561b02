"""The specification's own figures, measured here: `python benchmarks/specification.py`.

    forward  `model(images)`: four steps and a 64x64 view, C = 32
    train    one step of the third of its loops: forward, three losses, backward, Adam
    memory   what a forward, or a training step, takes at B = 2

And what the switches of a training run do: one joint step of the medium preset in float32, in bfloat16, and with
gradient checkpointing. Each row in a process of its own, the median of its runs; memory is the peak of the process's
resident memory, of which PyTorch takes some 250 MiB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.timing import machine
from model.losses import Targets, diffusion_loss, reconstruction_loss, rendering_loss
from model.pipeline import WaveletTriplaneDiffusion
from model.training.config import SourceConfig, StageConfig, TrainConfig
from model.training.data.pools import make_pool
from model.training.stages import Stages
from model.training.teacher import Teacher

# What is measured, and what the specification says of an Intel i7 and an RTX 3090.
ROWS = {
    "forward, B = 1": ("forward", 1, "2 to 3 s; GPU 0.10 to 0.15 s"),
    "forward, B = 4": ("forward", 4, "8 to 10 s; GPU 0.3 to 0.4 s"),
    "training step, B = 4": ("train", 4, "GPU 0.5 to 0.7 s"),
    "forward, B = 2": ("forward", 2, "memory 500 MB; GPU 2 GB"),
    "training step, B = 2": ("train", 2, "GPU memory 6 to 8 GB"),
    "joint step of a run, float32": ("joint float32", 4, ""),
    "joint step of a run, bfloat16": ("joint bfloat16", 4, ""),
    "the same, gradient checkpointing": ("joint bfloat16 checkpointing", 4, ""),
}


def call_of(kind: str, batch: int) -> Callable[[], object]:
    """What a row times."""
    torch.manual_seed(0)
    if kind.startswith("joint"):
        return _joint_step(kind, batch)
    model = WaveletTriplaneDiffusion(triplane_channels=32)
    images = torch.rand(batch, 3, 256, 256) * 2 - 1
    if kind == "forward":
        return lambda: _without_gradients(model, images)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    targets = Targets(torch.randn(batch, 3, 32, 128, 128), torch.rand(batch, 3, 64, 64))

    def step() -> None:
        outputs = model(images, return_intermediate=True)
        loss = diffusion_loss(outputs) + 0.1 * reconstruction_loss(outputs, targets)
        loss = loss + rendering_loss(outputs["rendered_image"], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _without_gradients(model: WaveletTriplaneDiffusion, images: torch.Tensor) -> object:
    with torch.no_grad():
        return model(images)


def _joint_step(kind: str, batch: int) -> Callable[[], object]:
    nothing = StageConfig(0, batch, 1e-3)
    config = TrainConfig(
        preset="medium", source=(SourceConfig(objects=batch),), precision=kind.split()[1],
        gradient_checkpointing=kind.endswith("checkpointing"), coarse=nothing, detail=nothing,
        joint=StageConfig(1, batch, 2e-4, 1024, 256),
    )  # fmt: skip
    model = WaveletTriplaneDiffusion(triplane_channels=32)
    teacher = Teacher(32, model.config.resolution, model.config.hidden_dim)
    with TemporaryDirectory() as folder:
        sizes = (model.config.image_size, 2 * model.config.resolution)
        pool = make_pool(config.source, Path(folder), *sizes)
        stages = Stages(config, model, teacher, pool)
        stages.joint(0)  # while the pictures of the objects are there

        def step() -> None:
            model.zero_grad()
            stages.joint(1)["loss"].backward()

        step()
        return step


def measure(kind: str, batch: int, runs: int) -> dict[str, float]:
    """Seconds and MiB of a row, in this process."""
    call = call_of(kind, batch)
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds)), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(
    runs: Annotated[int, typer.Option(help="Timed calls of each row, after one that is not counted.", min=1)] = 3,
    only: Annotated[str, typer.Option(help="One row, in this process, as JSON.", hidden=True)] = "",
) -> None:
    """Measures the rows of the specification's table of benchmarks."""
    if only:
        kind, batch, _ = ROWS[only]
        typer.echo(json.dumps(measure(kind, batch, runs)))
        return
    table = Table("row", "seconds", "peak memory (MiB)", "the specification, on other machines")
    for name, (_, _, said) in ROWS.items():
        command = [sys.executable, __file__, "--runs", str(runs), "--only", name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        table.add_row(name, f"{found['seconds']:.2f}", f"{found['peak_mib']:.0f}", said)
    console = Console()
    console.print(table)
    console.print(machine(), highlight=False)


if __name__ == "__main__":
    typer.run(main)

"""The command line: `python -m runtime render|info|doctor|bench`."""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from .errors import OptionError, WaveletTriplaneError
from .files import atomic_write
from .geometry.cameras import AZIMUTH, ELEVATION, Camera
from .pipeline import Runtime
from .profiling import record_times
from .scene import Frame

if TYPE_CHECKING:
    from rich.table import Table

# Rich takes time to import: only what draws a table or a progress bar does so.
app = typer.Typer(add_completion=False, no_args_is_help=True, help="One picture in, a 3-D object out.")

Bundle = Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")]
BackendName = Annotated[str, typer.Option("--backend", help="auto, tensorrt, cuda or cpu.")]
Precision = Annotated[str | None, typer.Option(help="A variant of the bundle.")]
Threads = Annotated[int | None, typer.Option(help="Computing threads on a CPU; all cores by default.")]
MemoryLimit = Annotated[int | None, typer.Option(help="MiB that drawing may take; 256 by default.")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps; the bundle's default if left out.")]
Sampler = Annotated[str | None, typer.Option(help="ddim, dpmpp_2m, euler or ddpm.")]
Size = Annotated[int, typer.Option(help="Side of the drawn pictures in pixels.")]
Samples = Annotated[int, typer.Option(help="Samples per ray.")]


@app.command()
def render(
    image: Annotated[Path, typer.Argument(help="A picture of one object, best with a transparent background.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
    orbit: Annotated[int, typer.Option(help="Also draw this many views around the object.")] = 0,
    mesh: Annotated[bool, typer.Option("--mesh", help="Also write the surface as a GLB file.")] = False,
    azimuth: Annotated[float, typer.Option(help="Camera angle in degrees, from +z towards +x.")] = AZIMUTH,
    elevation: Annotated[float, typer.Option(help="Camera angle in degrees above the ground.")] = ELEVATION,
    size: Size = 128,
    samples: Samples = 64,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Seed of the diffusion's noise.")] = 0,
    sampler: Sampler = None,
    bundle: Bundle = None,
    backend: BackendName = "auto",
    precision: Precision = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    times: Annotated[bool, typer.Option("--times", help="Print the seconds of each stage.")] = False,
) -> None:
    """Reconstructs the object in a picture and draws it."""
    if orbit < 0:
        raise OptionError(f"--orbit must be 0 or more, not {orbit}.", "Leave it out for a single view.")
    single = out / f"{image.stem}.png"
    if single.exists() and image.exists() and single.samefile(image):
        raise OptionError(f"The result would overwrite the input {image}.", "Name another folder with --out.")
    with _open(bundle, backend, precision, threads, memory_limit) as rt, record_times() as recorded:
        camera = Camera.orbit(azimuth, elevation)
        scene = rt.reconstruct(image, steps, seed, sampler)
        # All that can fail comes before the first file is written.
        frames = scene.orbit(orbit, elevation, image_size=size, num_samples=samples) if orbit else ()
        surface = scene.mesh() if mesh else None
        first = scene.render(camera, size, samples)
        _save(first.to_uint8(), single)
        written = [single]
        for index, frame in enumerate(_with_progress(frames, orbit)):
            written.append(out / f"{image.stem}_orbit_{index:03d}.png")
            _save(frame.to_uint8(), written[-1])
        if surface is not None:
            written.append(out / f"{image.stem}.glb")
            surface.save(written[-1])
    several = f" to {written[-1]}, {len(written)} files" if len(written) > 1 else ""
    typer.echo(f"Wrote {written[0]}{several} ({rt.backend.name}, {rt.precision}).")
    if times:
        _print_table(_stage_table(recorded))


@app.command()
def info(
    bundle: Bundle = None, backend: BackendName = "auto", precision: Precision = None, threads: Threads = None
) -> None:
    """Says what the bundle is and which backend would run it, and why."""
    with _open(bundle, backend, precision, threads, None) as rt:
        from rich.markup import escape
        from rich.table import Table

        manifest = rt.bundle.manifest
        parity = manifest["precisions"][rt.precision].get("parity", {}).get("checks", [])
        worst = min((check["psnr_db"] for check in parity), default=float("nan"))
        table = Table(show_header=False, box=None)
        for key, value in (
            ("bundle", f"{rt.bundle.name} at {rt.bundle.path}"),
            ("trained", "yes" if rt.bundle.trained else "no: what it reconstructs means nothing"),
            ("parameters", f"{manifest['parameters']:,}"),
            ("triplane", f"3 x {rt.bundle.channels} x {2 * rt.bundle.resolution} x {2 * rt.bundle.resolution}"),
            ("defaults", f"{rt.bundle.default_steps} steps of {rt.bundle.default_sampler}"),
            ("precision", f"{rt.precision} (has {', '.join(rt.bundle.precisions)})"),
            ("parity", f"{worst:.1f} dB at the least against PyTorch, {len(parity)} checks at export"),
            ("backend", f"{rt.backend.name} ({rt.reason})"),
        ):
            table.add_row(key, escape(value))
        _print_table(table)


@app.command()
def doctor() -> None:
    """Says what this machine has and lacks, with the command that mends it."""
    from .doctor import examine  # What it looks through takes time to import.

    findings = list(examine())
    for finding in findings:
        mark = {True: "ok", None: "-", False: "FAIL"}[finding.good]
        typer.echo(f"{mark:5}{finding.subject:16}{finding.detail}")
    if any(finding.good is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def bench(
    image: Annotated[Path, typer.Argument(help="A picture to time with.")],
    runs: Annotated[int, typer.Option(help="Timed runs, after one that is not counted.")] = 5,
    size: Size = 128,
    samples: Samples = 64,
    steps: Steps = None,
    sampler: Sampler = None,
    bundle: Bundle = None,
    backend: BackendName = "auto",
    precision: Precision = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
) -> None:
    """Times each stage on this machine."""
    if runs < 1:
        raise OptionError(f"--runs must be 1 or more, not {runs}.", "The default is 5.")
    with _open(bundle, backend, precision, threads, memory_limit) as rt:
        rt.render(image, None, size, samples, steps, sampler=sampler)
        with record_times() as recorded:
            for _ in range(runs):
                rt.render(image, None, size, samples, steps, sampler=sampler)
    _print_table(_stage_table(recorded))


def main() -> None:
    """Runs the command line; a failure prints one sentence and exits with 1, bad usage with 2."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: typer.echo(f"note: {message}", err=True)
        try:
            app()
        except WaveletTriplaneError as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            typer.echo(f"error: {error.filename or 'input and output'}: {error.strerror or error}.", err=True)
            sys.exit(1)


@contextmanager
def _open(
    bundle: Path | None, backend: str, precision: str | None, threads: int | None, memory_limit: int | None
) -> Iterator[Runtime]:
    """A runtime for the rest of the process: closing it would free piece by piece what ends with the command."""
    rt = Runtime(bundle, backend, precision, threads, None if memory_limit is None else memory_limit << 20)
    try:
        yield rt
    except BaseException:
        rt.close()
        raise


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    with atomic_write(path) as partial:
        Image.fromarray(pixels).save(partial, "PNG")


def _with_progress(frames: Iterable[Frame], total: int) -> Iterable[Frame]:
    """The frames, with a bar on a terminal."""
    if not total or not sys.stderr.isatty():
        return frames
    from rich.console import Console
    from rich.progress import track

    return track(frames, "orbit", total, console=Console(stderr=True), transient=True)


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(table)


def _stage_table(times: dict[str, list[float]]) -> Table:
    from rich.table import Table

    table = Table("stage", "runs", "median (ms)", "total (ms)", box=None)
    for name, seconds in times.items():
        row = (len(seconds), f"{statistics.median(seconds) * 1e3:.1f}", f"{sum(seconds) * 1e3:.1f}")
        table.add_row(name, *map(str, row))
    return table

"""The command line: `wavelet-triplane render|mesh|serve|info|doctor|bench`, or `python -m runtime`."""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .backends import BACKENDS
from .commands import one_sentence_errors, say, say_error
from .errors import OptionError, WaveletTriplaneError, install_hint
from .geometry.cameras import AZIMUTH, ELEVATION, Camera
from .jobs import FRAMES, jobs_of
from .machine import LOOPBACK
from .outputs import check_targets
from .pipeline import Runtime
from .preprocessing import BACKGROUNDS
from .profiling import record_times

Item = TypeVar("Item")
if TYPE_CHECKING:
    from rich.table import Table

# Rich takes time to import: only what draws a table or a progress bar does so.
app = typer.Typer(add_completion=False, no_args_is_help=True, help="One image in, a 3-D object out.")

Bundle = Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")]
BackendName = Annotated[str, typer.Option("--backend", help=f"{', '.join(BACKENDS)}.")]
Precision = Annotated[str | None, typer.Option(help="A variant of the bundle.")]
Threads = Annotated[int | None, typer.Option(help="Computing threads on a CPU; all cores by default.")]
MemoryLimit = Annotated[int | None, typer.Option(help="MiB that drawing may take; 256 by default.")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps; the bundle's default if left out.")]
Sampler = Annotated[str | None, typer.Option(help="ddim, dpmpp_2m, euler or ddpm.")]
Size = Annotated[int, typer.Option(help="Side of the drawn views in pixels.")]
Samples = Annotated[int, typer.Option(help="Samples per ray.")]
Background = Annotated[str, typer.Option(help=f"{', '.join(BACKGROUNDS)}: what to do with an opaque one.")]
Mask = Annotated[Path | None, typer.Option(help="Image of the object's mask, white on black.")]
BackgroundModel = Annotated[str | None, typer.Option(help="For rembg: one of its models, or an ONNX file.")]
Projected = Annotated[bool, typer.Option(help="Give what the image shows the image's own pixels.")]
Silhouette = Annotated[bool, typer.Option(help="Hold the object to the outline that the image shows.")]
Seed = Annotated[int, typer.Option(help="Seed of the diffusion's noise.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that others wrote, too.")]


@app.command()
def render(
    images: Annotated[list[Path], typer.Argument(help="Images of one object each, or folders; - is standard input.")],
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("out"),
    orbit: Annotated[int, typer.Option(help="Also draw this many views around the object.")] = 0,
    mesh: Annotated[bool, typer.Option("--mesh", help="Also write the surface as a GLB file.")] = False,
    contact_sheet: Annotated[bool, typer.Option("--contact-sheet", help="Also write the views on one sheet.")] = False,
    turntable: Annotated[str, typer.Option(help="Also write an animation: webp, gif, png (APNG) or mp4.")] = "",
    frames: Annotated[int, typer.Option(help="Of the turntable.", min=2)] = FRAMES,
    transparent: Annotated[
        bool, typer.Option("--transparent", help="Leave the background out (not GIF, MP4).")
    ] = False,
    depth: Annotated[bool, typer.Option("--depth", help="Also write depths, 16 bit: 1/10000 scene units.")] = False,
    normals: Annotated[bool, typer.Option("--normals", help="Also write the surface's normals.")] = False,
    background: Background = "auto",
    mask: Mask = None,
    background_model: BackgroundModel = None,
    save_input: Annotated[bool, typer.Option("--save-input", help="Also write what the model was given.")] = False,
    azimuth: Annotated[float, typer.Option(help="Camera angle in degrees, from +z towards +x.")] = AZIMUTH,
    elevation: Annotated[float, typer.Option(help="Camera angle in degrees above the ground.")] = ELEVATION,
    size: Size = 128,
    samples: Samples = 64,
    projected: Projected = True,
    silhouette: Silhouette = True,
    exact: Annotated[bool, typer.Option("--exact", help="Query every sample: slow, for comparison.")] = False,
    steps: Steps = None,
    seed: Seed = 0,
    sampler: Sampler = None,
    bundle: Bundle = None,
    backend: BackendName = "auto",
    precision: Precision = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    overwrite: Overwrite = False,
    times: Annotated[bool, typer.Option("--times", help="Print the seconds of each stage.")] = False,
) -> None:
    """Reconstructs the object in each image and draws it."""
    if orbit < 0:
        raise OptionError(f"--orbit must be 0 or more, not {orbit}.", "Leave it out for a single view.")
    jobs = jobs_of(
        images, out, turntable, orbit=orbit, mesh=mesh, save_input=save_input, frames=frames, sheet=contact_sheet,
        transparent=transparent, depth=depth, normals=normals,
    )  # fmt: skip
    if mask is not None and len(jobs) > 1:
        raise OptionError("--mask is of one image.", "Render them one by one.")
    targets = [target for job in jobs for target in job.targets()]
    check_targets(targets, overwrite, [job.image for job in jobs] + ([mask] if mask is not None else []))
    drawing: dict[str, Any] = {"image_size": size, "num_samples": samples, "projected": projected}
    making = {
        "steps": steps, "seed": seed, "sampler": sampler, "background": background, "mask": mask,
        "silhouette": silhouette,
    }  # fmt: skip
    camera, failed = Camera.orbit(azimuth, elevation), []
    with _open(bundle, backend, precision, threads, memory_limit, background_model) as rt, record_times() as recorded:
        for job in _with_progress(jobs, len(jobs) if len(jobs) > 1 else 0, "images"):
            try:
                written = job.run(rt, camera, elevation, making, drawing, exact, _with_progress, targets)
            except WaveletTriplaneError as error:
                if len(jobs) == 1:
                    raise
                failed.append(job.image)
                say_error(f"failed: {job.image}: {error}")
                continue
            several = f" to {written[-1]}, {len(written)} files" if len(written) > 1 else ""
            say(f"Wrote {written[0]}{several} ({rt.backend.name}, {rt.precision}).")
    if times:
        _print_table(_stage_table(recorded))
    if failed:
        say_error(f"error: {len(failed)} of {len(jobs)} images failed: {', '.join(map(str, failed))}")
        raise typer.Exit(1)


@app.command()
def mesh(
    image: Annotated[Path, typer.Argument(help="Image of one object; - is standard input.")],
    out: Annotated[
        Path | None, typer.Option(help="File: .glb, .obj, .ply, .stl or .usdz; out/NAME.glb if none.")
    ] = None,
    texture: Annotated[int, typer.Option(help="Side of the texture in texels; 0 for colours at vertices.")] = 1024,
    faces: Annotated[int, typer.Option(help="Triangles at the most; 0 for all.")] = 20_000,
    resolution: Annotated[int, typer.Option(help="Samples along each axis that the surface is cut from.")] = 128,
    scale: Annotated[float | None, typer.Option(help="Longest side in metres (for slicers, millimetres).")] = None,
    ground: Annotated[bool, typer.Option("--ground", help="Put the lowest point at height 0.")] = False,
    up: Annotated[str, typer.Option(help="y, or z as CAD and printing have it.")] = "y",
    clean: Annotated[bool, typer.Option(help="Drop crumbs and smooth the ripple of texels.")] = True,
    projected: Projected = True,
    silhouette: Silhouette = True,
    background: Background = "auto",
    mask: Mask = None,
    background_model: BackgroundModel = None,
    steps: Steps = None,
    seed: Seed = 0,
    sampler: Sampler = None,
    bundle: Bundle = None,
    backend: BackendName = "auto",
    precision: Precision = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstructs the object in an image and writes its surface for other programs."""
    from .meshing.writing import Y_UP, files_of

    path = out or Path("out", f"{'stdin' if str(image) == '-' else image.stem}.glb")
    if up == "z" and path.suffix.lower() in Y_UP:
        raise OptionError(f"{path.suffix} files have y up, by their specification.", "Leave --up out, or use .obj.")
    check_targets(files_of(path, textured=texture > 0), overwrite, [image] if mask is None else [image, mask])
    making = {
        "steps": steps, "seed": seed, "sampler": sampler, "background": background, "mask": mask,
        "silhouette": silhouette,
    }  # fmt: skip
    with _open(bundle, backend, precision, threads, memory_limit, background_model) as rt:
        scene = rt.reconstruct(image, **making)
        surface = scene.mesh(resolution, projected, clean, faces or None, texture or None)
        written = surface.placed(scale, ground, up).save(path)
    beside = f" and {', '.join(other.name for other in written[1:])}" if len(written) > 1 else ""
    say(f"Wrote {written[0]}{beside}: {len(surface.faces):,} triangles ({rt.backend.name}, {rt.precision}).")


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
        say(f"{mark:5}{finding.subject:16}{finding.detail}")
    if any(finding.good is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def bench(
    image: Annotated[Path, typer.Argument(help="An image to time with.")],
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


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; a token is needed for any but this machine's.")
    ] = LOOPBACK[0],
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    waiting: Annotated[int, typer.Option(help="Requests that may wait.", min=0)] = 16,
    seconds: Annotated[float, typer.Option(help="From a request to its answer, at the most.", min=0.1)] = 60.0,
    bundle: Bundle = None,
    backend: BackendName = "auto",
    precision: Precision = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    background_model: BackgroundModel = None,
    page: Annotated[
        Path | None, typer.Option(help="Folder of a site by export/to_web.py: its page can do without the server.")
    ] = None,
) -> None:
    """Serves the runtime by HTTP, with a page at /; WAVELET_TRIPLANE_TOKEN is the token that requests have to bear."""
    token = os.environ.get("WAVELET_TRIPLANE_TOKEN") or None
    if token is None and host not in LOOPBACK:
        raise OptionError(
            f"Listening on {host} would let anybody in.", "Set WAVELET_TRIPLANE_TOKEN, or leave --host out."
        )
    try:
        from .serving.app import PAGE, create_app
        from .serving.options import Limits
        from .serving.server import run
    except ImportError as error:
        raise OptionError(f"Serving needs {error.name}, which is not installed.", install_hint("serve")) from None
    if page is not None and not (page / "index.html").is_file():
        raise OptionError(f"{page} holds no page.", "Make one with `make web`.")
    limit = None if memory_limit is None else memory_limit << 20
    rt = Runtime(bundle, backend, precision, threads, limit, background_model)
    limits = Limits(waiting=waiting, seconds=seconds)
    run(create_app(rt, limits, token, page=page or PAGE), host, port, seconds)


def main() -> None:
    """Runs the command line; a failure prints one sentence and exits with 1, bad usage with 2."""
    with warnings.catch_warnings(), one_sentence_errors():
        # Of each warning the sentence is enough, and all of them are shown.
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: say_error(f"note: {message}")
        app()


@contextmanager
def _open(
    bundle: Path | None,
    backend: str,
    precision: str | None,
    threads: int | None,
    memory_limit: int | None,
    background_model: str | None = None,
) -> Iterator[Runtime]:
    """A runtime for the rest of the process: closing it would free piece by piece what ends with the command."""
    limit = None if memory_limit is None else memory_limit << 20
    rt = Runtime(bundle, backend, precision, threads, limit, background_model)
    try:
        yield rt
    except BaseException:
        rt.close()
        raise


def _with_progress(items: Iterable[Item], total: int, what: str) -> Iterable[Item]:
    """The items, with a bar on a terminal."""
    if not total or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), transient=True)


def _print_table(table: Table) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(table)
    say(captured.get().rstrip("\n"))


def _stage_table(times: dict[str, list[float]]) -> Table:
    from rich.table import Table

    table = Table("stage", "runs", "median (ms)", "total (ms)", box=None)
    for name, seconds in times.items():
        row = (len(seconds), f"{statistics.median(seconds) * 1e3:.1f}", f"{sum(seconds) * 1e3:.1f}")
        table.add_row(name, *map(str, row))
    return table

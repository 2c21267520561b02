"""Bundle to engines: `python export/to_tensorrt.py --bundle DIR --out DIR [--precision float16] [--targets sm86,sm89]`.

One engine for each graph that a GPU runs. An engine that is there already is built again only if something that it
depends on changed, and then the reason is said.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx
import typer
from filelock import FileLock
from rich.console import Console
from rich.table import Table

from export.engine_builder import BuildError, Built, Range, build, profile_of
from export.lint import check
from runtime.backends.device.backend import LARGEST_POINTS, LARGEST_RAYS, MOST_SAMPLES
from runtime.backends.device.cuda import gpu_name
from runtime.backends.tensorrt.engine_file import (
    EngineKey,
    EngineMiss,
    engine_folder,
    engine_path,
    read_engine,
    write_engine,
)
from runtime.backends.tensorrt.installation import FLAVOURS, Flavour, find_flavour
from runtime.bundle import CPU_ONLY, ENGINE_GRAPHS, Bundle, default_bundle, load_bundle
from runtime.commands import one_sentence_errors

POINTS: Range = (1, LARGEST_POINTS, LARGEST_POINTS)
BATCH: Range = (1, 1, 4)
# Of views, the sizes that the runtime draws in.
VIEWS: dict[str, Range] = {"rays": (1, LARGEST_RAYS, LARGEST_RAYS), "samples": (1, 64, MOST_SAMPLES)}
TARGETS = ("sm86", "sm89", "sm120")
_DTYPES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8"}
_console = Console(stderr=True)


@dataclass(frozen=True)
class Result:
    """What became of one graph: why it was built (None if it was there), plan size in bytes, seconds, what was built
    (None if nothing), and what the lint warned of.
    """

    precision: str
    graph: str
    reason: str | None
    size: int
    seconds: float
    built: Built | None
    warnings: tuple[str, ...] = ()


def build_engines(
    bundle: Bundle,
    out: Path,
    flavour: Flavour,
    precisions: Sequence[str],
    batch: Range = BATCH,
    points: Range = POINTS,
    targets: Sequence[str] = TARGETS,
    workspace: int = 1 << 30,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Builds what is missing or stale, one graph after another.

    Args:
        bundle: verified.
        out: folder of the engines.
        flavour: what builds them.
        precisions: variants of the bundle.
        batch: least, best and largest number of items.
        points: the same of points.
        targets: compute capabilities, for RTX; other flavours build for the GPU that is there.
        workspace: bytes.
        progress: called with what is being done.

    Raises:
        BuildError, LintError: a graph cannot become an engine.
        BackendError, OptionError: no GPU where one is needed, or no such precision.
    """
    built_for = targets if flavour.name == "rtx" else ()
    device = ", ".join(built_for) if built_for else gpu_name()
    for precision in precisions:
        if precision == CPU_ONLY:
            raise BuildError(f"{CPU_ONLY} runs on a CPU alone: TensorRT does not parse its zero points. Use int8.")
        bundle.check_precision(precision)
        for name in ENGINE_GRAPHS:
            graph = bundle.graph(precision, name)
            profile = profile_of(graph, {"batch": batch, "points": points, **VIEWS})
            digest = hashlib.sha256(graph.data).hexdigest()
            key = EngineKey(
                digest, flavour.name, flavour.version, device, profile, {"workspace": workspace, "tf32": False}
            )
            path = engine_path(out, precision, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            # Two builds at once: the second waits, and then finds the engine of the first.
            with FileLock(path.with_suffix(".lock")):
                reason, made, warnings = None, None, []
                try:
                    size = len(read_engine(path, key))
                except EngineMiss as miss:
                    reason = str(miss)
                    progress(f"{precision} {name}: {reason}")
                    warnings = check(onnx.load_from_string(graph.data), graph.inputs, graph.outputs)
                    made = build(
                        graph,
                        profile,
                        flavour,
                        built_for,
                        workspace,
                        _DTYPES[precision],
                        lambda phase, said=f"{precision} {name}": progress(f"{said}: {phase}"),  # type: ignore[misc]
                    )
                    write_engine(path, key, made.plan)
                    size = len(made.plan)
            yield Result(precision, name, reason, size, time.perf_counter() - started, made, tuple(map(str, warnings)))


def report(results: Sequence[Result], console: Console) -> None:
    """Prints a line for each engine, and why those that were built were."""
    table = Table(box=None)
    for header in ("precision", "graph", "plan", "took", "in precision", ""):
        table.add_column(header, no_wrap=True)
    for r in results:
        share = "" if r.built is None else f"{100 * r.built.share:.0f} %"
        said = "up to date" if r.reason is None else "built"
        table.add_row(r.precision, r.graph, f"{r.size / 1e6:.1f} MB", f"{r.seconds:.2f} s", share, said)
    console.print(table)
    for r in results:
        if r.reason is not None:
            console.print(f"{r.precision} {r.graph} was built: {r.reason}.", soft_wrap=True, highlight=False)
        if r.built is not None:
            layers = sorted(r.built.layers.items(), key=lambda item: -item[1])
            said = ", ".join(f"{count} {kind} {dtype}" for (kind, dtype), count in layers)
            console.print(f"{r.precision} {r.graph} has {said}.", soft_wrap=True, highlight=False)
        for warning in r.warnings:
            console.print(f"{r.precision} {r.graph}, lint: {warning}", soft_wrap=True, highlight=False)


@one_sentence_errors()
def main(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the engines; where the runtime looks for them if left out.")
    ] = None,
    flavour: Annotated[str, typer.Option(help=", ".join(FLAVOURS) + ".")] = "auto",
    precision: Annotated[list[str] | None, typer.Option(help="A variant, again for more; all if left out.")] = None,
    batch: Annotated[tuple[int, int, int], typer.Option(help="Least, best and largest batch.")] = BATCH,
    points: Annotated[tuple[int, int, int], typer.Option(help="The same of the renderer's points.")] = POINTS,
    targets: Annotated[str, typer.Option(help="Compute capabilities, for RTX.")] = ",".join(TARGETS),
    workspace: Annotated[int, typer.Option(help="Scratch memory of a layer in MiB.", min=1)] = 1024,
) -> None:
    """Builds TensorRT engines of a bundle."""
    results: list[Result] = []
    try:
        found = find_flavour(flavour)
        loaded = load_bundle(default_bundle() if bundle is None else bundle)
        folder = out or engine_folder(loaded)
        chosen = precision or [p for p in loaded.precisions if p != CPU_ONLY]
        with _console.status("building") as status:
            built_for = [t.strip() for t in targets.split(",")]
            for result in build_engines(
                loaded, folder, found, chosen, batch, points, built_for, workspace << 20, status.update
            ):
                results.append(result)
    finally:  # What was built before an error stands.
        if results:
            report(results, Console())
    typer.echo(f"{folder} holds engines for {found.name} {found.version}.")


if __name__ == "__main__":
    typer.run(main)

"""Checkpoint to bundle: `python export/to_onnx.py [--checkpoint FILE] [--preset small] [--out DIR]`.

Exports the graphs in each precision, compares each graph and the whole path with PyTorch, and writes the bundle only if
all of it keeps to the tolerance.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export.bundle_writer import ExportError, describe_model, replacing, write_graph, write_manifest
from export.graphs import graph_definitions, to_onnx
from export.group_norm import as_layer_norms
from export.late_upsampling import with_late_upsampling
from export.lift_gathers import as_gathers
from export.parity import TOLERANCE, Check, check_graph, check_path, references
from export.precision import to_float16
from export.quantize import Array, Feeds, calibration_feeds, calibration_pictures, to_int8
from model import PRESETS, WaveletTriplaneDiffusion
from model.checkpoint import CheckpointError
from runtime.errors import WaveletTriplaneError

UNTRAINED_SEED = 0
_console = Console(stderr=True)
Item = TypeVar("Item")


def untrained_model(preset: str, seed: int = UNTRAINED_SEED) -> WaveletTriplaneDiffusion:
    """A preset with weights from a fixed seed, in evaluation mode."""
    if preset not in PRESETS:
        raise ExportError(f"Unknown preset {preset!r}; there are {', '.join(PRESETS)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WaveletTriplaneDiffusion.from_config(PRESETS[preset]).eval()


def export_bundle(
    model: WaveletTriplaneDiffusion,
    out: Path,
    name: str,
    trained: bool,
    notes: dict[str, Any] | None = None,
    precisions: Sequence[str] = ("float32",),
    calibration: Array | None = None,
) -> list[Check]:
    """Writes `model` as a bundle.

    Args:
        model: in evaluation mode, on the CPU.
        out: folder of the bundle; an older bundle there is replaced.
        name: what the bundle is called.
        trained: False where the weights come from a random seed.
        notes: JSON values to keep in the manifest.
        precisions: variants to write, names in `parity.TOLERANCE`; the first is the bundle's default.
        calibration: (N, 3, S, S) float32 in [-1, 1], pictures that int8 finds its ranges on; drawn where left out.

    Returns:
        The parity checks, all passed.

    Raises:
        ExportError: a check misses its tolerance, or a precision is unknown; nothing was written.
    """
    unknown = set(precisions) - set(TOLERANCE)
    if unknown or not precisions:
        raise ExportError(f"Unknown precision {', '.join(sorted(unknown))}; there are {', '.join(TOLERANCE)}.")
    manifest = describe_model(model, name, trained, notes or {})
    with replacing(out) as folder:
        definitions = graph_definitions(model)
        exact = {d.name: to_onnx(d) for d in _tracked(definitions, "exporting graphs")}
        feeds = None
        if any(p.startswith("int8") for p in precisions):
            images = calibration_pictures(model.config.image_size) if calibration is None else calibration
            feeds = calibration_feeds(exact, images, model.config.num_diffusion_steps)
        expected = references(model)
        checks: list[Check] = []
        for precision in precisions:
            protos = {d.name: convert(exact[d.name], d.name, precision, feeds) for d in definitions}
            graphs = {d.name: write_graph(folder, precision, d, protos[d.name]) for d in definitions}
            manifest["precisions"][precision] = {"graphs": graphs}
            write_manifest(folder, manifest)
            found = [check for d in definitions for check in check_graph(d, protos[d.name])]
            found += _tracked(list(check_path(expected, folder, precision)), f"checking {precision}")
            print_report(found, precision)
            failed = [check for check in found if not check.passes(precision)]
            if failed:
                raise ExportError(
                    f"{len(failed)} of {len(found)} parity checks in {precision} miss {TOLERANCE[precision]:g} dB, the "
                    f"worst is {min(failed, key=lambda c: c.psnr).what}; no bundle was written."
                )
            manifest["precisions"][precision]["parity"] = {
                "tolerance_db": TOLERANCE[precision],
                "checks": [{"what": c.what, "psnr_db": round(c.psnr, 2), "largest": c.largest} for c in found],
            }
            checks += found
        write_manifest(folder, manifest)
    return checks


def convert(
    proto: onnx.ModelProto, graph: str, precision: str, feeds: dict[str, list[Feeds]] | None
) -> onnx.ModelProto:
    """An exported graph in one of the precisions; int8 leaves those without convolutions as they are."""
    if precision == "float16":
        return to_float16(proto)
    in_onnx_runtime = precision in ("float32", "int8-cpu")
    proto = with_late_upsampling(proto, joined=in_onnx_runtime)
    if in_onnx_runtime:
        proto = as_gathers(as_layer_norms(proto))
    if feeds is not None and precision.startswith("int8") and graph in feeds:
        return to_int8(proto, feeds[graph], cpu_only=precision == "int8-cpu")
    return proto


def _tracked(items: Sequence[Item], what: str) -> Iterable[Item]:
    return track(items, what, console=_console, disable=not _console.is_terminal)


def print_report(checks: Sequence[Check], precision: str) -> None:
    """Prints a line per check."""
    table = Table(title=f"Parity with PyTorch, {precision}, at least {TOLERANCE[precision]:g} dB")
    for header, side in (("compared", "left"), ("PSNR (dB)", "right"), ("largest difference", "right"), ("", "left")):
        table.add_column(header, justify=side)  # type: ignore[arg-type]
    for check in checks:
        verdict = "ok" if check.passes(precision) else "MISSED"
        table.add_row(check.what, f"{check.psnr:.1f}", f"{check.largest:.2e}", verdict)
    Console().print(table)


def main(
    checkpoint: Annotated[Path | None, typer.Option(help="What model.save() wrote.")] = None,
    preset: Annotated[str, typer.Option(help="Without a checkpoint: small, medium or large, untrained.")] = "small",
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")] = Path("out/bundle"),
    precision: Annotated[
        list[str] | None, typer.Option(help="A variant to write, again for more; all four if left out.")
    ] = None,
) -> None:
    """Exports a checkpoint, or an untrained preset, to an ONNX bundle and checks it against PyTorch."""
    try:
        if checkpoint is None:
            model, name, trained = untrained_model(preset), f"{preset}-untrained", False
            notes: dict[str, Any] = {"seed": UNTRAINED_SEED}
        else:
            model, name = WaveletTriplaneDiffusion.load(checkpoint), checkpoint.stem
            notes = model.notes
            trained = bool(notes.get("trained"))
        export_bundle(model, out, name, trained, notes, precision or list(TOLERANCE))
    except (ExportError, CheckpointError, WaveletTriplaneError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Wrote {out} ({name}{'' if trained else ', untrained'}).")


if __name__ == "__main__":
    typer.run(main)

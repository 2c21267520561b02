"""Checkpoint to bundle: `python export/to_onnx.py [--checkpoint FILE] [--preset small] [--out DIR]`.

Exports the three graphs, compares each and the whole path with PyTorch, and writes the bundle only if all of it keeps
to the tolerance.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export.bundle_writer import ExportError, describe_model, replacing, write_graph, write_manifest
from export.graphs import graph_definitions, to_onnx
from export.parity import TOLERANCE, Check, check_graph, check_path
from model import PRESETS, WaveletTriplaneDiffusion
from model.checkpoint import CheckpointError
from runtime.errors import WaveletTriplaneError

UNTRAINED_SEED = 0
_console = Console(stderr=True)


def untrained_model(preset: str, seed: int = UNTRAINED_SEED) -> WaveletTriplaneDiffusion:
    """A preset with weights from a fixed seed, in evaluation mode."""
    if preset not in PRESETS:
        raise ExportError(f"Unknown preset {preset!r}; there are {', '.join(PRESETS)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WaveletTriplaneDiffusion.from_config(PRESETS[preset]).eval()


def export_bundle(
    model: WaveletTriplaneDiffusion, out: Path, name: str, trained: bool, notes: dict[str, Any] | None = None
) -> list[Check]:
    """Writes `model` as a bundle in float32.

    Args:
        model: in evaluation mode, on the CPU.
        out: folder of the bundle; an older bundle there is replaced.
        name: what the bundle is called.
        trained: False where the weights come from a random seed.
        notes: JSON values to keep in the manifest.

    Returns:
        The parity checks, all passed.

    Raises:
        ExportError: a check misses its tolerance; nothing was written.
    """
    precision = "float32"
    manifest = describe_model(model, name, trained, notes or {})
    with replacing(out) as folder:
        graphs: dict[str, Any] = {}
        checks: list[Check] = []
        for definition in track(
            graph_definitions(model), "exporting graphs", console=_console, disable=not _console.is_terminal
        ):
            proto = to_onnx(definition)
            graphs[definition.name] = write_graph(folder, precision, definition, proto)
            checks += check_graph(definition, proto)
        manifest["precisions"][precision] = {"graphs": graphs}
        write_manifest(folder, manifest)
        checks += track(
            check_path(model, folder, precision),
            "checking the path",
            console=_console,
            disable=not _console.is_terminal,
        )
        print_report(checks, precision)
        failed = [check for check in checks if not check.passes(precision)]
        if failed:
            raise ExportError(
                f"{len(failed)} of {len(checks)} parity checks miss {TOLERANCE[precision]:g} dB, the worst is "
                f"{min(failed, key=lambda c: c.psnr).what}; no bundle was written."
            )
        manifest["precisions"][precision]["parity"] = {
            "tolerance_db": TOLERANCE[precision],
            "checks": [{"what": c.what, "psnr_db": round(c.psnr, 2), "largest": c.largest} for c in checks],
        }
        write_manifest(folder, manifest)
    return checks


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
        export_bundle(model, out, name, trained, notes)
    except (ExportError, CheckpointError, WaveletTriplaneError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Wrote {out} ({name}{'' if trained else ', untrained'}).")


if __name__ == "__main__":
    typer.run(main)

"""Checkpoint to bundle: `python export/to_onnx.py [--checkpoint FILE] [--preset small] [--out DIR]`.

Exports the graphs in each precision, compares each graph and the whole path with PyTorch, and writes the bundle only if
all of it keeps to the tolerance.
"""

from __future__ import annotations

import sys
from collections import defaultdict
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
from export.fast_modules import by_group_norm, by_layer_norm, with_fast_modules
from export.graphs import graph_definitions, to_onnx
from export.parity import Check, check_graph, check_path, references
from export.precision import to_float16
from export.quantize import Feeds, calibration_feeds, calibration_images, to_int8
from export.sensitivity import density_sensitivity
from model import PRESETS, WaveletTriplaneDiffusion
from runtime.array_types import Array
from runtime.bundle import PARITY_DB
from runtime.commands import one_sentence_errors

UNTRAINED_SEED = 0
# The graphs that `export.fast_modules` changes.
NETWORKS = ("coarse", "diffusion_step")
# Which of `export.fast_modules` a precision is written with: none in float16, which CPUs run for its parity alone.
FORMS = {"float32": "onnxruntime", "float16": "plain", "int8": "compilers", "int8-cpu": "onnxruntime"}
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
        precisions: variants to write, names in `runtime.bundle.PARITY_DB`; the first is the bundle's default.
        calibration: (N, 3, S, S) float32 in [-1, 1], images that int8 finds its ranges on, and the decoder's
            sensitivity is measured on; procedural objects where left out.

    Returns:
        The parity checks, all passed.

    Raises:
        ExportError: a check misses its tolerance, or a precision is unknown; nothing was written.
    """
    unknown = set(precisions) - set(PARITY_DB)
    if unknown or not precisions:
        raise ExportError(f"Unknown precision {', '.join(sorted(unknown))}; there are {', '.join(PARITY_DB)}.")
    images = calibration_images(model.config.image_size) if calibration is None else calibration
    sensitivity = density_sensitivity(model, torch.from_numpy(images))
    manifest = describe_model(model, name, trained, notes or {}, sensitivity)
    with replacing(out) as folder:
        definitions = graph_definitions(model)
        exported = export_forms(model, dict.fromkeys(FORMS[p] for p in precisions))
        feeds = None
        if any(p.startswith("int8") for p in precisions):
            feeds = calibration_feeds(next(iter(exported.values())), images, model.config.num_diffusion_steps)
        expected = references(model)
        checks: list[Check] = []
        for precision in precisions:
            exact = exported[FORMS[precision]]
            protos = {name: convert(exact[name], name, precision, feeds) for name in definitions}
            graphs = {name: write_graph(folder, precision, d, protos[name]) for name, d in definitions.items()}
            manifest["precisions"][precision] = {"graphs": graphs}
            write_manifest(folder, manifest)
            found = [check for name, d in definitions.items() for check in check_graph(d, protos[name])]
            found += _tracked(list(check_path(expected, folder, precision)), f"checking {precision}")
            print_report(found, precision)
            failed = [check for check in found if not check.passes(precision)]
            if failed:
                raise ExportError(
                    f"{len(failed)} of {len(found)} parity checks in {precision} miss {PARITY_DB[precision]:g} dB, the "
                    f"worst is {min(failed, key=lambda c: c.psnr).what}; no bundle was written."
                )
            manifest["precisions"][precision]["parity"] = {
                "tolerance_db": PARITY_DB[precision],
                "checks": [{"what": c.what, "psnr_db": round(c.psnr, 2), "largest": c.largest} for c in found],
            }
            checks += found
        write_manifest(folder, manifest)
    return checks


def export_forms(model: WaveletTriplaneDiffusion, forms: Iterable[str]) -> dict[str, dict[str, onnx.ModelProto]]:
    """Exports the graphs in float32, by form and name; what no form changes is exported once.

    Args:
        model: in evaluation mode.
        forms: values of `FORMS`.
    """
    swapped = {
        "plain": lambda: model,
        "compilers": lambda: with_fast_modules(model, by_group_norm, gathers=False),
        "onnxruntime": lambda: with_fast_modules(model, by_layer_norm, gathers=True),
    }
    definitions = graph_definitions(model)
    work = [("all forms", d) for name, d in definitions.items() if name not in NETWORKS]
    for form in forms:
        changed = graph_definitions(swapped[form]())
        work += [(form, changed[name]) for name in NETWORKS]
    made: dict[str, dict[str, onnx.ModelProto]] = defaultdict(dict)
    for form, definition in _tracked(work, "exporting graphs"):
        made[form][definition.name] = to_onnx(definition)
    shared = made.pop("all forms")
    return {form: networks | shared for form, networks in made.items()}


def convert(
    proto: onnx.ModelProto, graph: str, precision: str, feeds: dict[str, list[Feeds]] | None
) -> onnx.ModelProto:
    """An exported graph in one of the precisions; int8 leaves those without convolutions as they are."""
    if precision == "float16":
        return to_float16(proto)
    if feeds is not None and precision.startswith("int8") and graph in feeds:
        return to_int8(proto, feeds[graph], cpu_only=precision == "int8-cpu")
    return proto


def _tracked(items: Sequence[Item], what: str) -> Iterable[Item]:
    return track(items, what, console=_console, disable=not _console.is_terminal)


def print_report(checks: Sequence[Check], precision: str) -> None:
    """Prints a line per check."""
    table = Table(title=f"Parity with PyTorch, {precision}, at least {PARITY_DB[precision]:g} dB")
    for header, side in (("compared", "left"), ("PSNR (dB)", "right"), ("largest difference", "right"), ("", "left")):
        table.add_column(header, justify=side)  # type: ignore[arg-type]
    for check in checks:
        verdict = "ok" if check.passes(precision) else "MISSED"
        table.add_row(check.what, f"{check.psnr:.1f}", f"{check.largest:.2e}", verdict)
    Console().print(table)


@one_sentence_errors()
def main(
    checkpoint: Annotated[Path | None, typer.Option(help="What model.save() wrote.")] = None,
    preset: Annotated[str, typer.Option(help="Without a checkpoint: small, medium or large, untrained.")] = "small",
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")] = Path("out/bundle"),
    precision: Annotated[
        list[str] | None, typer.Option(help="A variant to write, again for more; all four if left out.")
    ] = None,
) -> None:
    """Exports a checkpoint, or an untrained preset, to an ONNX bundle and checks it against PyTorch."""
    if checkpoint is None:
        model, name, trained = untrained_model(preset), f"{preset}-untrained", False
        notes: dict[str, Any] = {"seed": UNTRAINED_SEED}
    else:
        model, name = WaveletTriplaneDiffusion.load(checkpoint), checkpoint.stem
        notes = model.notes
        trained = bool(notes.get("trained"))
    export_bundle(model, out, name, trained, notes, precision or list(PARITY_DB))
    typer.echo(f"Wrote {out} ({name}{'' if trained else ', untrained'}).")


if __name__ == "__main__":
    typer.run(main)

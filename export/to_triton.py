"""Bundle to a model repository of Triton: `python export/to_triton.py --bundle DIR --out models [--engines DIR]`.

    coarse, diffusion_step, view, renderer   the graphs, in ONNX Runtime; or as TensorRT engines
    reconstruct                              an image file's bytes to triplane and view: the loop, in the Python backend

`tritonserver --model-repository models` then answers HTTP and gRPC. `coarse` and `renderer` are batched by Triton; a
sampling step has one row for its whole batch, and planes of its own, so it is not.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from runtime.backends.tensorrt.engine_file import EngineMiss, engine_path, open_engine
from runtime.bundle import Bundle, Graph, default_bundle, load_bundle
from runtime.commands import one_sentence_errors, say
from runtime.errors import ProjectError

GRAPHS = ("coarse", "diffusion_step", "view", "renderer")
# Not in a folder `triton`: scripts here have theirs first in the path, and PyTorch imports a package of that name.
LOOP = Path(__file__).parent / "triton_model" / "model.py"
# Batched by Triton, as many at once: all of their inputs have the batch first.
BATCHED, _LARGEST_BATCH = ("coarse", "renderer"), 8
_KINDS = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "int64": "TYPE_INT64"}
# Inputs of the loop: name, kind, sizes, and whether it may be left out.
_INPUTS = (
    ("IMAGE", "TYPE_STRING", [1], False), ("SEED", "TYPE_INT64", [1], True), ("STEPS", "TYPE_INT32", [1], True),
    ("AZIMUTH", "TYPE_FP32", [1], True), ("ELEVATION", "TYPE_FP32", [1], True), ("SIZE", "TYPE_INT32", [1], True),
)  # fmt: skip


class TritonError(ProjectError, RuntimeError):
    """The repository cannot be made; the message says why and what to do."""


def make_repository(
    bundle: Bundle, out: Path, precision: str = "float32", engines: Path | None = None, instances: int = 1
) -> list[Path]:
    """Writes a model repository.

    Args:
        bundle: verified.
        out: folder; models of the same names there are replaced, others stay.
        precision: a variant of the bundle.
        engines: folder of engines by `to_tensorrt.py`, for the GPU that will run them; None for ONNX Runtime.
        instances: of each model, on each GPU or on the CPU.

    Returns:
        The folders of the models.

    Raises:
        TritonError: an engine is missing, or not one that Triton loads for this bundle.
        OptionError: the bundle has no such variant.
    """
    bundle.check_precision(precision)
    graphs = [bundle.graph(precision, name) for name in GRAPHS]
    # All is read before anything is replaced.
    read = [_plan_of(graph, engine_path(engines, precision, graph.name)) if engines else None for graph in graphs]
    folders = []
    for graph, found in zip(graphs, read, strict=True):
        version = _fresh(out / graph.name)
        if found is None:
            (version / "model.onnx").write_bytes(graph.data)
            config = _graph_config(graph, "onnxruntime_onnx", _LARGEST_BATCH, instances)
        else:
            plan, largest = found
            (version / "model.plan").write_bytes(plan)
            config = _graph_config(graph, "tensorrt_plan", largest, instances)
        (out / graph.name / "config.pbtxt").write_text(config)
        folders.append(out / graph.name)
    version = _fresh(out / "reconstruct")
    shutil.copy(LOOP, version / "model.py")
    kept = ("image", "defaults", "schedule", "statistics", "model")
    (version / "manifest.json").write_text(
        json.dumps({key: value for key, value in bundle.manifest.items() if key in kept})
    )
    side = 2 * bundle.resolution
    planes = ("TRIPLANE", "TYPE_FP32", [3, bundle.channels, side, side])
    (out / "reconstruct" / "config.pbtxt").write_text(
        _loop_config([planes, ("VIEW", "TYPE_UINT8", [-1, -1, 3])], instances)
    )
    return [*folders, out / "reconstruct"]


def _plan_of(graph: Graph, path: Path) -> tuple[bytes, int]:
    """The plan that Triton loads, and the largest batch that it was built for."""
    try:
        key, plan = open_engine(path)
    except EngineMiss as miss:
        raise TritonError(f"There is no engine of {graph.name} at {path}: {miss}. Run export/to_tensorrt.py.") from None
    if key["graph"] != hashlib.sha256(graph.data).hexdigest():
        raise TritonError(f"{path} is of another bundle's {graph.name}: run export/to_tensorrt.py with this bundle.")
    if key["flavour"] != "tensorrt":
        raise TritonError(f"{path} was built by TensorRT-RTX, which Triton does not load: build it with TensorRT.")
    return plan, max((shapes[-1][0] for name, shapes in key["profile"].items() if name != "row"), default=1)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    version = folder / "1"
    version.mkdir(parents=True)
    return version


def _graph_config(graph: Graph, platform: str, largest_batch: int, instances: int) -> str:
    batched = graph.name in BATCHED
    lines = [f'name: "{graph.name}"', f'platform: "{platform}"', f"max_batch_size: {largest_batch if batched else 0}"]
    for side, specs in (("input", graph.inputs), ("output", graph.outputs)):
        for spec in specs:
            sizes = [-1 if isinstance(size, str) else size for size in spec.shape]
            lines.append(_tensor(side, spec.name, _KINDS[spec.dtype], sizes[1:] if batched else sizes))
    lines.append(f"instance_group [ {{ count: {instances} }} ]")
    if batched:
        lines.append("dynamic_batching { max_queue_delay_microseconds: 2000 }")
    return "\n".join(lines) + "\n"


def _loop_config(outputs: list[tuple[str, str, list[int]]], instances: int) -> str:
    lines = ['name: "reconstruct"', 'backend: "python"', "max_batch_size: 0"]
    lines += [_tensor("input", *what) for what in _INPUTS]
    lines += [_tensor("output", *what) for what in outputs]
    # A loop waits for the graphs most of the time: several keep them busy.
    lines.append(f"instance_group [ {{ count: {2 * instances} kind: KIND_CPU }} ]")
    return "\n".join(lines) + "\n"


def _tensor(side: str, name: str, kind: str, sizes: list[Any], optional: bool = False) -> str:
    return f'{side} [ {{ name: "{name}" data_type: {kind} dims: {sizes}{" optional: true" if optional else ""} }} ]'


@one_sentence_errors()
def main(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the model repository.")] = Path("out/triton"),
    precision: Annotated[str, typer.Option(help="A variant of the bundle.")] = "float32",
    engines: Annotated[Path | None, typer.Option(help="Engines by export/to_tensorrt.py instead of ONNX.")] = None,
    instances: Annotated[int, typer.Option(help="Of each model.", min=1)] = 1,
) -> None:
    """Writes a model repository for NVIDIA Triton."""
    loaded = load_bundle(default_bundle() if bundle is None else bundle)
    folders = make_repository(loaded, out, precision, engines, instances)
    say(f"Wrote {', '.join(folder.name for folder in folders)} to {out}: tritonserver --model-repository {out}")


if __name__ == "__main__":
    typer.run(main)

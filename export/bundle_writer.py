"""Writing a bundle: graphs and manifest into a temporary folder, renamed when every check has passed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import onnx

from model import WaveletTriplaneDiffusion
from model.renderer import DENSITY_SCALE
from runtime.bundle import ENGINES, MANIFEST, TensorSpec
from runtime.diffusion.schedule import cosine_schedule
from runtime.errors import ProjectError
from runtime.geometry.cameras import FOREGROUND_RATIO
from runtime.manifest import FORMAT_VERSION, GraphEntry, Manifest, ModelEntry, TensorEntry, manifest_digest

from .graphs import OPSET, GraphDefinition

DEFAULT_STEPS, DEFAULT_SAMPLER = 4, "ddim"
# In place of the hash while it is computed.
_BLANK = "0" * 64


class ExportError(ProjectError, RuntimeError):
    """The export cannot go on; nothing was written."""


def describe_model(
    model: WaveletTriplaneDiffusion, name: str, trained: bool, notes: Mapping[str, Any], sensitivity: list[float]
) -> Manifest:
    """The manifest without its hash and its precisions.

    `notes["defaults"]`, where the checkpoint has it, holds the sampler and the number of steps that suit its weights,
    `notes["surface_logit"]` the logit that meshes are cut at.
    """
    alpha, sigma = cosine_schedule(model.config.num_diffusion_steps)
    defaults = {"steps": DEFAULT_STEPS, "sampler": DEFAULT_SAMPLER} | notes.get("defaults", {})
    steps = min(defaults["steps"], model.config.num_diffusion_steps)
    return {
        "format_version": FORMAT_VERSION,
        "sha256": _BLANK,
        "name": name,
        "trained": trained,
        "parameters": sum(p.numel() for p in model.parameters()),
        "model": cast(ModelEntry, asdict(model.config)),
        "image": {"size": model.config.image_size, "framing": FOREGROUND_RATIO},
        "renderer": {
            "density_scale": DENSITY_SCALE,
            "sensitivity": sensitivity,
            "surface_logit": float(notes.get("surface_logit", 0.0)),
        },
        "defaults": {"steps": steps, "sampler": defaults["sampler"]},
        "schedule": {"alpha": alpha.tolist(), "sigma": sigma.tolist()},
        "statistics": {
            "ll_mean": model.coarse_gen.mean.tolist(),
            "ll_std": model.coarse_gen.std.tolist(),
            "detail_mean": model.detail_mean.tolist(),
            "detail_std": model.detail_std.tolist(),
        },
        "notes": dict(notes),
        "precisions": {},
    }


def write_graph(folder: Path, precision: str, definition: GraphDefinition, proto: onnx.ModelProto) -> GraphEntry:
    """Writes one graph and returns its entry in the manifest."""
    data = proto.SerializeToString()
    file = f"{precision}/{definition.name}.onnx"
    (folder / precision).mkdir(exist_ok=True)
    (folder / file).write_bytes(data)
    return {
        "file": file,
        "sha256": hashlib.sha256(data).hexdigest(),
        "opset": OPSET,
        "inputs": [_tensor_entry(spec) for spec in definition.inputs],
        "outputs": [_tensor_entry(spec) for spec in definition.outputs],
    }


def _tensor_entry(spec: TensorSpec) -> TensorEntry:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest with its own sha256 in it."""
    text = json.dumps({**manifest, "sha256": _BLANK}, indent=1)
    # One number a line would make a long file that nobody can read.
    text = re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    raw = text.encode()
    (folder / MANIFEST).write_bytes(raw.replace(_BLANK.encode(), manifest_digest(raw, _BLANK).encode(), 1))


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `target` at the end of the block, or vanishes if the block fails.

    Raises:
        ExportError: `target` exists and is neither an empty folder nor a bundle.
    """
    if target.exists() and not _may_replace(target):
        raise ExportError(f"{target} exists and is no bundle: name an empty or a new folder with --out.")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    os.chmod(folder, 0o755)
    old = folder.with_name(f"{folder.name}-old")
    try:
        yield folder
        if target.exists():
            target.rename(old)
            if (old / ENGINES).exists():
                # They say themselves what they were built for: the next build tells what changed.
                (old / ENGINES).rename(folder / ENGINES)
        try:
            folder.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _may_replace(target: Path) -> bool:
    """Whether a folder is empty, or a bundle with nothing but engines beside it."""
    if not target.is_dir():
        return False
    paths = [path.relative_to(target) for path in target.rglob("*") if not path.is_dir()]
    found = {path.as_posix() for path in paths if path.parts[0] != ENGINES}
    if not found:
        return True
    try:
        precisions = json.loads((target / MANIFEST).read_bytes())["precisions"]
        listed = {graph["file"] for variant in precisions.values() for graph in variant["graphs"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return found <= listed | {MANIFEST}

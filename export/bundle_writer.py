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
from typing import Any

import onnx

from model import WaveletTriplaneDiffusion
from model.renderer import DENSITY_SCALE
from runtime.bundle import FORMAT_VERSION, MANIFEST, manifest_digest
from runtime.images import TRAINING_FRAMING
from runtime.schedule import cosine_schedule

from .graphs import OPSET, GraphDefinition

DEFAULT_STEPS, DEFAULT_SAMPLER = 4, "ddim"


class ExportError(RuntimeError):
    """The export cannot go on; nothing was written."""


def describe_model(
    model: WaveletTriplaneDiffusion, name: str, trained: bool, notes: Mapping[str, Any]
) -> dict[str, Any]:
    """The part of the manifest that every precision shares."""
    alpha, sigma = cosine_schedule(model.config.num_diffusion_steps)
    statistics = {key: getattr(model, key).tolist() for key in ("ll_mean", "ll_std", "detail_mean", "detail_std")}
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "trained": trained,
        "parameters": sum(p.numel() for p in model.parameters()),
        "model": asdict(model.config),
        "image": {"size": model.config.image_size, "framing": TRAINING_FRAMING},
        "renderer": {"density_scale": DENSITY_SCALE},
        "defaults": {"steps": DEFAULT_STEPS, "sampler": DEFAULT_SAMPLER},
        "schedule": {"alpha": alpha.tolist(), "sigma": sigma.tolist()},
        "statistics": statistics,
        "notes": dict(notes),
        "precisions": {},
    }


def write_graph(folder: Path, precision: str, definition: GraphDefinition, proto: onnx.ModelProto) -> dict[str, Any]:
    """Writes one graph and returns its entry in the manifest."""
    data = proto.SerializeToString()
    file = f"{precision}/{definition.name}.onnx"
    (folder / precision).mkdir(exist_ok=True)
    (folder / file).write_bytes(data)
    return {
        "file": file,
        "sha256": hashlib.sha256(data).hexdigest(),
        "opset": OPSET,
        "inputs": [asdict(spec) for spec in definition.inputs],
        "outputs": [asdict(spec) for spec in definition.outputs],
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest with its own sha256 in it."""
    blank = "0" * 64
    text = json.dumps({"format_version": FORMAT_VERSION, "sha256": blank, **manifest}, indent=1)
    # One number a line would make a long file that nobody can read.
    text = re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    raw = text.encode()
    (folder / MANIFEST).write_bytes(raw.replace(blank.encode(), manifest_digest(raw, blank).encode(), 1))


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `target` at the end of the block, or vanishes if the block fails.

    Raises:
        ExportError: `target` exists and is neither an empty folder nor a bundle.
    """
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target} exists and is no bundle: name an empty or a new folder with --out.")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    os.chmod(folder, 0o755)
    old = folder.with_name(f"{folder.name}-old")
    try:
        yield folder
        if target.exists():
            target.rename(old)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

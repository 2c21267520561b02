"""The manifest of a bundle: one schema for those who write, read and check it."""

# Without `from __future__ import annotations`: TypedDict would not see its NotRequired keys.
import functools
import hashlib
import json
import re
from pathlib import Path
from types import UnionType
from typing import Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from .errors import BundleError

FORMAT_VERSION = 3
_hints = functools.cache(get_type_hints)
REMEDY = "Export it again with `python export/to_onnx.py`, or reinstall the package for its default bundle."


class TensorEntry(TypedDict):
    """An input or output: name, NumPy dtype name, and shape with a name for each dynamic axis."""

    name: str
    dtype: str
    shape: list[int | str]


class GraphEntry(TypedDict):
    """A graph's file, relative to the manifest, its hash, and what goes in and out."""

    file: str
    sha256: str
    opset: int
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]


class CheckEntry(TypedDict):
    """One comparison with PyTorch: PSNR in dB, and the largest difference."""

    what: str
    psnr_db: float
    largest: float


class ParityEntry(TypedDict):
    """The comparisons that were made at export, and the least PSNR that was asked for."""

    tolerance_db: float
    checks: list[CheckEntry]


class PrecisionEntry(TypedDict):
    """A variant: its graphs by name."""

    graphs: dict[str, GraphEntry]
    parity: NotRequired[ParityEntry]


class ModelEntry(TypedDict):
    """The sizes of `model.config.ModelConfig`."""

    triplane_channels: int
    num_diffusion_steps: int
    resolution: int
    hidden_dim: int
    time_embed_dim: int
    density_bias: float


class ImageEntry(TypedDict):
    """Side of the square input in pixels, and the share of it that the object's bounding square takes."""

    size: int
    framing: float


class RendererEntry(TypedDict):
    """Density per scene unit is density_scale * softplus(logit).

    sensitivity is of the logit to each plane's features; meshes are cut at surface_logit, 0 where it is left out.
    """

    density_scale: float
    sensitivity: list[float]
    surface_logit: NotRequired[float]


class DefaultsEntry(TypedDict):
    """What is used where the caller names none."""

    steps: int
    sampler: str


class ScheduleEntry(TypedDict):
    """alpha and sigma of each diffusion step."""

    alpha: list[float]
    sigma: list[float]


class StatisticsEntry(TypedDict):
    """Means and standard deviations per plane and channel: (3, C) of LL, (3, 3C) of the details."""

    ll_mean: list[list[float]]
    ll_std: list[list[float]]
    detail_mean: list[list[float]]
    detail_std: list[list[float]]


class Manifest(TypedDict):
    """The whole file. `sha256` is of the file itself with 64 zeros in its place."""

    format_version: int
    sha256: str
    name: str
    trained: bool
    parameters: int
    model: ModelEntry
    image: ImageEntry
    renderer: RendererEntry
    defaults: DefaultsEntry
    schedule: ScheduleEntry
    statistics: StatisticsEntry
    notes: dict[str, Any]
    precisions: dict[str, PrecisionEntry]


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Parses a manifest after checking its version and its own hash.

    Args:
        raw: content of the file.
        path: of the file, for messages.

    Raises:
        BundleError: it is damaged, altered, of another version, or lacks something.
    """
    try:
        manifest = json.loads(raw)
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(f"{path} is damaged: it is no manifest in JSON.", REMEDY) from None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {version!r}; this runtime reads version {FORMAT_VERSION}.",
            "Install the runtime that the bundle was made for, or export the bundle again.",
        )
    digest = manifest.get("sha256")
    signed = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None
    if not signed or manifest_digest(raw, digest) != digest:
        if signed and manifest_digest(raw.replace(b"\r\n", b"\n"), digest) == digest:
            raise BundleError(
                f"{path} has Windows line endings, and its sha256 is of the file without them.",
                "Clone again with `git -c core.autocrlf=false clone ...`: bundles are not to be changed by git.",
            )
        raise BundleError(f"{path} was altered: its content does not match its own sha256.", REMEDY)
    try:
        _check_types(manifest, Manifest, "")
        _check_sizes(manifest)
    except ValueError as error:
        raise BundleError(f"The manifest of {path.parent} lacks or garbles {error}.", REMEDY) from None
    return manifest


def manifest_digest(raw: bytes, digest: str) -> str:
    """sha256 of a manifest's bytes with its own digest blanked out by zeros."""
    return hashlib.sha256(raw.replace(digest.encode(), b"0" * 64, 1)).hexdigest()


def _check_types(value: Any, kind: Any, where: str) -> None:
    """Raises ValueError naming the first place whose value is not of its type in the schema."""
    if is_typeddict(kind):
        _check_types(value, dict, where or "all of it")
        for name, inner in _hints(kind).items():
            path = f"{where}.{name}".lstrip(".")
            if name in value:
                _check_types(value[name], inner, path)
            elif name in kind.__required_keys__:
                raise ValueError(f"{path}, which is not there")
        return
    origin, inner_kinds = get_origin(kind), get_args(kind)
    if origin is list:
        _check_types(value, list, where)
        for index, item in enumerate(value):
            _check_types(item, inner_kinds[0], f"{where}[{index}]")
    elif origin is dict:
        _check_types(value, dict, where)
        for name, item in value.items():
            _check_types(item, inner_kinds[1], f"{where}.{name}")
    elif kind is not Any:
        kinds = inner_kinds if origin is UnionType else (int, float) if kind is float else (kind,)
        # True is an int in Python, and none in JSON.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{where}, which should be of type {' or '.join(k.__name__ for k in kinds)}")


def _check_sizes(manifest: Manifest) -> None:
    """Raises ValueError naming what does not fit together."""
    if not manifest["precisions"]:
        raise ValueError("precisions, of which there are none")
    channels, schedule = manifest["model"]["triplane_channels"], manifest["schedule"]
    if len(schedule["alpha"]) != len(schedule["sigma"]) or len(schedule["alpha"]) < manifest["defaults"]["steps"]:
        raise ValueError("schedule, whose alpha and sigma do not fit together or the default steps")
    if np.shape(manifest["renderer"]["sensitivity"]) != (3,):
        raise ValueError("renderer.sensitivity, which should be three numbers")
    details = {name: manifest["statistics"][name] for name in ("detail_mean", "detail_std")}
    for name, values in details.items():
        if len(values) != 3 or any(len(row) != 3 * channels for row in values):
            raise ValueError(f"statistics.{name}, whose shape should be (3, {3 * channels})")
    if manifest["image"]["size"] != 4 * manifest["model"]["resolution"]:
        raise ValueError("image.size, which should be four times model.resolution")

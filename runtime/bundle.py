"""The bundle: a folder with `manifest.json` and ONNX graphs, verified byte by byte before anything of it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, OptionError

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
# Folder beside the manifest, where engines of its graphs lie.
ENGINES = "engines"
# The precision that no GPU takes: its zero points do not parse in TensorRT.
CPU_ONLY = "int8-cpu"
# Least PSNR in dB against PyTorch: in float32 and float16 of every check, in int8 of drawn views.
PARITY_DB = {"float32": 60.0, "float16": 45.0, "int8": 35.0, CPU_ONLY: 35.0}
# What a GPU runs as engines; a CPU reads the planes itself and decodes what it read.
ENGINE_GRAPHS = ("coarse", "diffusion_step", "assemble", "renderer", "view")
GRAPHS = (*ENGINE_GRAPHS, "decoder")
_REMEDY = "Export it again with `python export/to_onnx.py`, or reinstall the package for its default bundle."


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output: name, NumPy dtype name, and shape with a name for each dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One verified ONNX graph."""

    name: str
    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. The runtime takes every constant of the model from here.

    Attributes:
        path: its folder.
        manifest: the parsed manifest.
        files: content of the graph files that were kept, by their paths inside the folder.
    """

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """What the exporter called it: a preset, or the checkpoint's name."""
        return self.manifest["name"]

    @property
    def trained(self) -> bool:
        """False where the weights come from a random seed."""
        return self.manifest["trained"]

    @property
    def precisions(self) -> tuple[str, ...]:
        """Names of the variants, the default one first."""
        return tuple(self.manifest["precisions"])

    @property
    def channels(self) -> int:
        """Features per texel, C."""
        return self.manifest["model"]["triplane_channels"]

    @property
    def resolution(self) -> int:
        """Side R of the low-resolution planes."""
        return self.manifest["model"]["resolution"]

    @property
    def image_size(self) -> int:
        """Side of the square input image in pixels."""
        return self.manifest["image"]["size"]

    @property
    def framing(self) -> float:
        """Share of the image's side that the object's bounding square takes, as in training."""
        return self.manifest["image"]["framing"]

    @property
    def density_scale(self) -> float:
        """Density per scene unit = density_scale * softplus(logit); the surface is at logit 0."""
        return self.manifest["renderer"]["density_scale"]

    @property
    def sensitivity(self) -> tuple[float, ...]:
        """For each plane, how much the density's logit changes at most with the plane's features (Euclidean norm)."""
        return tuple(self.manifest["renderer"]["sensitivity"])

    @property
    def default_steps(self) -> int:
        """Sampling steps where the caller names none."""
        return self.manifest["defaults"]["steps"]

    @property
    def default_sampler(self) -> str:
        """Sampler where the caller names none."""
        return self.manifest["defaults"]["sampler"]

    @property
    def schedule(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """alpha and sigma of the noise schedule, each (T,) float64."""
        schedule = self.manifest["schedule"]
        return np.array(schedule["alpha"]), np.array(schedule["sigma"])

    @property
    def detail_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of the details, each (3, 3C) float32."""
        statistics = self.manifest["statistics"]
        return np.array(statistics["detail_mean"], np.float32), np.array(statistics["detail_std"], np.float32)

    def graph(self, precision: str, name: str) -> Graph:
        """One graph of one variant, with what the manifest says of its inputs and outputs."""
        file = self.manifest["precisions"][precision]["graphs"][name]["file"]
        return Graph(name, self.files[file], *self.specs(precision, name))

    def specs(self, precision: str, name: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of one graph of one variant, as the manifest has them."""
        entry = self.manifest["precisions"][precision]["graphs"][name]
        inputs, outputs = (
            tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in entry[side])
            for side in ("inputs", "outputs")
        )
        return inputs, outputs

    def check_precision(self, precision: str | None) -> str:
        """The variant to use: the bundle's first where None is asked for."""
        if precision is None:
            return self.precisions[0]
        if precision not in self.precisions:
            raise OptionError(
                f"The bundle {self.name!r} has no precision {precision!r}; it has {', '.join(self.precisions)}.",
                "Leave precision out, or export that variant.",
            )
        return precision


def default_bundle() -> Path:
    """Folder of the bundle that ships inside the package."""
    return Path(__file__).parent / "bundles" / "default"


def load_bundle(path: str | Path) -> Bundle:
    """Reads and verifies a bundle.

    Raises:
        BundleError: it is missing, incomplete, altered in any byte, or of another format version.
    """
    return _load(path, lambda bundle: bundle.precisions)


def load_variant(path: str | Path, precision: str | None) -> Bundle:
    """`load_bundle` that keeps the graphs of one variant in memory, of the first where `precision` is None.

    Raises:
        BundleError: as there. OptionError: there is no such variant.
    """
    return _load(path, lambda bundle: (bundle.check_precision(precision),))


def _load(path: str | Path, kept: Callable[[Bundle], Sequence[str]]) -> Bundle:
    try:
        folder = Path(path)
        present = folder.is_dir()
    except (TypeError, ValueError, OSError):
        raise BundleError(f"{str(path)[:200]!r} is no path of a bundle.", _REMEDY) from None
    if not present:
        raise BundleError(f"There is no bundle folder at {folder}.", _REMEDY)
    manifest = read_manifest(folder / MANIFEST)
    try:
        _check_manifest(manifest)
        bundle = Bundle(folder, manifest, {})
        wanted = kept(bundle)
        entries = [
            (graph["file"], graph["sha256"], variant in wanted)
            for variant, made in manifest["precisions"].items()
            for graph in (made["graphs"][name] for name in GRAPHS)
        ]
        # Hashes are computed without the interpreter's lock: side by side they take half of a short start.
        with ThreadPoolExecutor() as readers:
            contents = list(readers.map(lambda entry: _verified(folder, *entry), entries))
        for variant in bundle.precisions:
            for name in GRAPHS:
                bundle.specs(variant, name)
    except OptionError:  # A ValueError, too.
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(f"The manifest of {folder} lacks or garbles {error}.", _REMEDY) from None
    files = {entry[0]: data for entry, data in zip(entries, contents, strict=True) if data is not None}
    return replace(bundle, files=files)


def read_manifest(path: Path) -> dict[str, Any]:
    """Parses a manifest after checking its version and its own hash."""
    raw = _read(path)
    try:
        manifest = json.loads(raw)
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path} is damaged: it is no manifest in JSON.", _REMEDY) from None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {version!r}; this runtime reads version {FORMAT_VERSION}.",
            "Install the runtime that the bundle was made for, or export the bundle again.",
        )
    digest = manifest.get("sha256")
    if not isinstance(digest, str) or len(digest) != 64 or manifest_digest(raw, digest) != digest:
        if isinstance(digest, str) and manifest_digest(raw.replace(b"\r\n", b"\n"), digest) == digest:
            raise BundleError(
                f"{path} has Windows line endings, and its sha256 is of the file without them.",
                "Clone again with `git -c core.autocrlf=false clone ...`: bundles are not to be changed by git.",
            )
        raise BundleError(f"{path} was altered: its content does not match its own sha256.", _REMEDY)
    return manifest


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raises ValueError or KeyError naming what the runtime needs and does not find."""
    kinds: tuple[tuple[Any, ...], ...] = (
        (str, "name", "defaults.sampler"),
        (bool, "trained"),
        (int, "parameters", "model.triplane_channels", "model.resolution", "image.size", "defaults.steps"),
        (float, "image.framing", "renderer.density_scale"),
        (list, "schedule.alpha", "schedule.sigma", "statistics.detail_mean", "statistics.detail_std"),
        (dict, "precisions"),
    )
    for kind, *paths in kinds:
        for path in paths:
            value: Any = manifest
            for key in path.split("."):
                value = value[key]
            if not isinstance(value, kind):
                raise ValueError(f"{path}, which should be of type {kind.__name__}")
    if not manifest["precisions"]:
        raise ValueError("precisions, of which there are none")
    channels, schedule = manifest["model"]["triplane_channels"], manifest["schedule"]
    if len(schedule["alpha"]) != len(schedule["sigma"]) or len(schedule["alpha"]) < manifest["defaults"]["steps"]:
        raise ValueError("schedule, whose alpha and sigma do not fit together or the default steps")
    if np.shape(manifest["renderer"]["sensitivity"]) != (3,):
        raise ValueError("renderer.sensitivity, which should be three numbers")
    for name in ("detail_mean", "detail_std"):
        if np.shape(manifest["statistics"][name]) != (3, 3 * channels):
            raise ValueError(f"statistics.{name}, whose shape should be (3, {3 * channels})")
    if manifest["image"]["size"] != 4 * manifest["model"]["resolution"]:
        raise ValueError("image.size, which should be four times model.resolution")


def manifest_digest(raw: bytes, digest: str) -> str:
    """sha256 of a manifest's bytes with its own digest blanked out by zeros."""
    return hashlib.sha256(raw.replace(digest.encode(), b"0" * 64, 1)).hexdigest()


def _verified(folder: Path, name: str, digest: str, kept: bool) -> bytes | None:
    """Content of a file after comparing its hash; None, and no memory for it, where it is not kept."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BundleError(f"The manifest of {folder} points outside the bundle, to {name}.", _REMEDY)
    path = folder / name
    data = _read(path) if kept else None
    if (_digest(path) if data is None else hashlib.sha256(data).hexdigest()) != digest:
        raise BundleError(f"{path} was altered: it does not match the sha256 in the manifest.", _REMEDY)
    return data


def _read(path: Path) -> bytes:
    with _readable(path):
        return path.read_bytes()


def _digest(path: Path) -> str:
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"The bundle is incomplete: {path} cannot be read ({error.strerror}).", _REMEDY) from None

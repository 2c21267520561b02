"""The bundle: a folder with `manifest.json` and ONNX graphs, verified byte by byte before anything of it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, OptionError
from .manifest import REMEDY, Manifest, parse_manifest

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
    manifest: Manifest
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
        """Density per scene unit = density_scale * softplus(logit)."""
        return self.manifest["renderer"]["density_scale"]

    @property
    def surface_logit(self) -> float:
        """The density's logit that meshes are cut at."""
        return self.manifest["renderer"].get("surface_logit", 0.0)

    @property
    def sensitivity(self) -> tuple[float, ...]:
        """For each plane, an estimate of how much the density's logit changes with its features (Euclidean norm)."""
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
        raise BundleError(f"{str(path)[:200]!r} is no path of a bundle.", REMEDY) from None
    if not present:
        raise BundleError(f"There is no bundle folder at {folder}.", REMEDY)
    manifest = parse_manifest(_read(folder / MANIFEST), folder / MANIFEST)
    for variant, made in manifest["precisions"].items():
        if missing := sorted(set(GRAPHS) - set(made["graphs"])):
            raise BundleError(f"The manifest of {folder} lacks {missing[0]} among the graphs of {variant}.", REMEDY)
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
    files = {entry[0]: data for entry, data in zip(entries, contents, strict=True) if data is not None}
    return replace(bundle, files=files)


def _verified(folder: Path, name: str, digest: str, kept: bool) -> bytes | None:
    """Content of a file after comparing its hash; None, and no memory for it, where it is not kept."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BundleError(f"The manifest of {folder} points outside the bundle, to {name}.", REMEDY)
    path = folder / name
    data = _read(path) if kept else None
    if (_digest(path) if data is None else hashlib.sha256(data).hexdigest()) != digest:
        raise BundleError(f"{path} was altered: it does not match the sha256 in the manifest.", REMEDY)
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
        raise BundleError(f"The bundle is incomplete: {path} cannot be read ({error.strerror}).", REMEDY) from None
    except ValueError as error:
        raise BundleError(f"The manifest of {path.parent} garbles the name of a file ({error}).", REMEDY) from None

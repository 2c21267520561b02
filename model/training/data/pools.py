"""Pools of training objects: procedural ones from a range of seeds, posed views from disk, and mixtures of both."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from runtime.files import atomic_write
from runtime.geometry.cameras import Camera

from ..config import SourceConfig
from ..procedural.objects import make_object
from ..procedural.packing import pack
from ..supervision import JoinedTruth, Truth
from .drawing import OrthographicViews, SolidCaster, draw_orthographic, draw_view, over_white, place_of, to_bytes
from .posed import DataError, ViewFiles, find_views, object_folders
from .solid_truth import SolidTruth
from .view_truth import ViewTruth

_CHUNK = 256
# Colour, place along the axis and mask, from either end.
TEACHER_CHANNELS = 10


class Pool(Protocol):
    """Objects to train on. Batches are on the CPU."""

    def __len__(self) -> int: ...

    def images(self, indices: NDArray[np.integer]) -> Tensor:
        """Input images (B, 3, size, size) float32 in [-1, 1], over white."""
        ...

    def truth(self, indices: NDArray[np.integer]) -> Truth:
        """What is known of the objects."""
        ...

    def orthographic(self, indices: NDArray[np.integer]) -> Tensor:
        """What the teacher sees of objects: (B, 3, TEACHER_CHANNELS, S, S) float32."""
        ...


class ObjectPool:
    """Procedural objects and the images of them, drawn once and kept on disk.

    Args:
        folder: where the images are kept; chunks that are there already are not drawn again.
        kind: "plain" or "textured".
        seeds: of the objects.
        size: side of the input images in pixels.
        planes: side of the orthographic views.
    """

    def __init__(self, folder: Path, kind: str, seeds: range, size: int, planes: int) -> None:
        textured, count = kind == "textured", len(seeds)
        objects = [make_object(seed, textured=textured) for seed in track(seeds, "making objects", transient=True)]
        self._solids = pack(objects)
        folder.mkdir(parents=True, exist_ok=True)
        self._chunks = []
        for start in track(range(0, count, _CHUNK), "drawing pictures", transient=True):
            here = range(start, min(start + _CHUNK, count))
            name = f"{kind}-{seeds[start]}-{len(here)}-{size}-{planes}"
            self._chunks.append(self._chunk(folder / name, here, size, planes))

    def __len__(self) -> int:
        return len(self._solids)

    def images(self, indices: NDArray[np.integer]) -> Tensor:
        """As in `Pool`."""
        return _images(np.stack([self._chunks[i // _CHUNK][0][i % _CHUNK] for i in indices]))

    def truth(self, indices: NDArray[np.integer]) -> Truth:
        """As in `Pool`."""
        return SolidTruth(self._solids[torch.from_numpy(indices)])

    def orthographic(self, indices: NDArray[np.integer]) -> Tensor:
        """As in `Pool`."""
        chunks = [(self._chunks[i // _CHUNK], i % _CHUNK) for i in indices]
        return teacher_input([OrthographicViews(chunk[1][place], chunk[2][place]) for chunk, place in chunks])

    def _chunk(self, path: Path, here: range, size: int, planes: int) -> Sequence[NDArray[np.generic]]:
        """Input images, and colours and depths of the orthographic views, as files that are mapped into memory."""
        files = [path.with_name(f"{path.name}-{part}.npy") for part in ("input", "rgba", "depth")]
        if not all(file.exists() for file in files):
            drawn = []
            for index in here:
                caster = SolidCaster(self._solids[index : index + 1])
                six = draw_orthographic(caster, planes)
                picture, _ = draw_view(caster, Camera.orbit(), size)
                drawn.append((to_bytes(over_white(picture)), six.rgba, six.depth))
            for file, values in zip(files, zip(*drawn, strict=True), strict=True):
                with atomic_write(file) as partial, partial.open("wb") as stream:
                    np.save(stream, np.stack(values))
        return [np.load(file, mmap_mode="r") for file in files]


class PosedPool:
    """Posed views from a data set's folder, read as they are needed; the input view is taken as it is, over white.

    Args:
        root: one folder an object, as in `posed.find_views`.
        size: side of the input images in pixels.
        planes: side of the orthographic views.
        scale: multiplies the cameras' positions.

    Raises:
        DataError: nothing there, or damaged.
    """

    def __init__(self, root: Path, size: int, planes: int, scale: float = 1.0) -> None:
        self._files = [find_views(folder, scale) for folder in track(object_folders(root), "looking", transient=True)]
        self._size, self._planes = size, planes
        self._readers = ThreadPoolExecutor(os.cpu_count())

    def __len__(self) -> int:
        return len(self._files)

    def some(self, indices: range) -> PosedPool:
        """A pool of these objects alone."""
        smaller = copy.copy(self)
        smaller._files = [self._files[index] for index in indices]
        return smaller

    def images(self, indices: NDArray[np.integer]) -> Tensor:
        """As in `Pool`."""
        pictures = self._readers.map(lambda index: _flattened(self._files[index].rgba(0), self._size), indices)
        return _images(np.stack(list(pictures)))

    def truth(self, indices: NDArray[np.integer]) -> Truth:
        """As in `Pool`."""
        return ViewTruth([self._files[index] for index in indices])

    def orthographic(self, indices: NDArray[np.integer]) -> Tensor:
        """As in `Pool`. Raises `DataError` where an object has no such views, or none of a size that can be thinned."""
        return teacher_input(list(self._readers.map(lambda index: self._thinned(self._files[index]), indices)))

    def _thinned(self, files: ViewFiles) -> OrthographicViews:
        views = files.six_views()
        every, rest = divmod(views.rgba.shape[2], self._planes)
        if rest or not every:
            raise DataError(
                f"The orthographic views of {files.pictures[0].parent} are of {views.rgba.shape[2]} pixels and do not "
                f"fit planes of {self._planes}: make the data with --planes {self._planes}."
            )
        return OrthographicViews(views.rgba[:, :, ::every, ::every], views.depth[:, :, ::every, ::every])


class MixedPool:
    """Several pools as one, and how batches are made up of them.

    Args:
        pools: of at least one object each.
        shares: how much of a batch comes from each, relative to one another.
    """

    def __init__(self, pools: Sequence[Pool], shares: Sequence[float]) -> None:
        self._pools = pools
        self._starts = np.cumsum([0, *map(len, pools)])
        self._shares = np.array(shares) / np.sum(shares)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def choose(self, rng: np.random.Generator, batch: int) -> NDArray[np.integer]:
        """Indices of a batch, pool after pool; random by the shares."""
        which = np.sort(rng.choice(len(self._pools), batch, p=self._shares))
        return np.array([self._starts[pool] + rng.integers(len(self._pools[pool])) for pool in which])

    def images(self, indices: NDArray[np.integer]) -> Tensor:
        """As in `Pool`; here and below, the indices in ascending order of their pools."""
        return torch.cat([pool.images(local) for pool, local in self._split(indices)])

    def truth(self, indices: NDArray[np.integer]) -> Truth:
        """As in `Pool`."""
        return JoinedTruth([pool.truth(local) for pool, local in self._split(indices)])

    def orthographic(self, indices: NDArray[np.integer]) -> Tensor:
        """As in `Pool`."""
        return torch.cat([pool.orthographic(local) for pool, local in self._split(indices)])

    def _split(self, indices: NDArray[np.integer]) -> list[tuple[Pool, NDArray[np.integer]]]:
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        return [(self._pools[own], indices[owners == own] - self._starts[own]) for own in np.unique(owners)]


def make_pool(sources: Sequence[SourceConfig], folder: Path, size: int, planes: int) -> MixedPool:
    """The pool of a run. Raises `DataError` where a folder cannot be read."""
    pools: list[Pool] = []
    for source in sources:
        if source.kind == "folder":
            pools.append(PosedPool(Path(source.path), size, planes, source.scale))
        else:
            seeds = range(source.first_seed, source.first_seed + source.objects)
            pools.append(ObjectPool(folder, source.kind, seeds, size, planes))
    return MixedPool(pools, [source.share for source in sources])


def teacher_input(views: Sequence[OrthographicViews]) -> Tensor:
    """What the teacher sees: colour, place along the axis and mask, the views from both ends stacked.

    Returns:
        (B, 3, TEACHER_CHANNELS, S, S) float32.
    """
    rgba = np.stack([each.rgba for each in views]).astype(np.float32) / 255
    mask = rgba[..., 3:]
    place = place_of(np.stack([each.depth for each in views]))[..., None] * mask
    channels = np.concatenate([rgba[..., :3] * mask, place, mask], axis=-1)
    return torch.from_numpy(channels).permute(0, 1, 2, 5, 3, 4).flatten(2, 3)


def _images(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _flattened(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(pixels)
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB").resize((size, size)))

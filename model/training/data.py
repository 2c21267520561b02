"""Training objects: procedural ones from a range of seeds, or posed views from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from runtime.cameras import Camera

from .objects import make_object
from .posed import object_folders, read_views
from .solids import pack
from .supervision import SolidTruth, Truth, ViewTruth
from .views import over_white, render_views

_CHUNK = 256
_DRAWN_AT_ONCE = 4


class Pool(Protocol):
    """Objects to train on."""

    device: torch.device

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Truth]:
        """Input pictures (B, 3, size, size) in [-1, 1], and what is known of the objects, on the pool's device."""
        ...


class ObjectPool:
    """Procedural objects and what the canonical camera sees of them, drawn once and kept on disk.

    Args:
        folder: where the pictures are kept; chunks that are there already are not drawn again.
        first_seed, count: the objects' seeds.
        size: side of the pictures in pixels.
        device: where pictures are drawn, and where batches go.
    """

    def __init__(self, folder: Path, first_seed: int, count: int, size: int, device: torch.device) -> None:
        self.device = device
        seeds = range(first_seed, first_seed + count)
        objects = [make_object(seed) for seed in track(seeds, "making objects", transient=True)]
        self._solids = pack(objects).to(device)
        folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, count, _CHUNK)
        self._pictures = np.concatenate(
            [
                self._chunk(folder / f"{first_seed + start}-{min(_CHUNK, count - start)}-{size}.npy", start, size)
                for start in track(starts, "drawing input pictures", transient=True)
            ]
        )

    def __len__(self) -> int:
        return len(self._solids)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, SolidTruth]:
        """As in `Pool`."""
        chosen = self._solids[torch.from_numpy(indices).to(self.device)]
        return _images(self._pictures[indices], self.device), SolidTruth(chosen)

    def _chunk(self, path: Path, start: int, size: int) -> np.ndarray:
        if path.exists():
            return np.load(path)
        solids = self._solids[start : start + _CHUNK]
        pictures = []
        for first in range(0, len(solids), _DRAWN_AT_ONCE):
            some = solids[first : first + _DRAWN_AT_ONCE]
            views = render_views(some, [Camera.orbit()], size, supersampling=1)
            pixels = (over_white(views[:, 0]) * 255).round().to(torch.uint8)
            pictures.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        drawn = np.concatenate(pictures)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, drawn)
        partial.replace(path)
        return drawn


class PosedPool:
    """Posed views from a data set's folder; the input view is taken as it is, over white.

    Args:
        root: one folder an object, as in `posed.read_views`.
        size: side of the input pictures in pixels.
        scale: multiplies the cameras' positions.
        device: where batches go.

    Raises:
        DataError: nothing there, or damaged.
    """

    def __init__(self, root: Path, size: int, scale: float, device: torch.device) -> None:
        self.device = device
        self._views = [read_views(folder, scale) for folder in track(object_folders(root), "reading", transient=True)]
        self._pictures = np.stack([_over_white(views.rgba[0], size) for views in self._views])

    def __len__(self) -> int:
        return len(self._views)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, ViewTruth]:
        """As in `Pool`."""
        views = [self._views[index] for index in indices]
        truth = ViewTruth([v.rgba for v in views], [v.cameras for v in views])
        return _images(self._pictures[indices], self.device), truth


def _images(pixels: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def _over_white(pixels: np.ndarray, size: int) -> np.ndarray:
    picture = Image.fromarray(pixels)
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB").resize((size, size)))

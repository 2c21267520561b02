"""Training objects: procedural, from a range of seeds, with their input pictures drawn once and kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from runtime.cameras import Camera

from .objects import make_object
from .solids import Solid, Solids, pack
from .views import over_white, render_views

_CHUNK = 256
_DRAWN_AT_ONCE = 4


class ObjectPool:
    """Procedural objects and what the canonical camera sees of them.

    Args:
        folder: where the pictures are kept; chunks that are there already are not drawn again.
        first_seed, count: the objects' seeds.
        size: side of the pictures in pixels.
        device: where pictures are drawn, and where batches go.
    """

    def __init__(self, folder: Path, first_seed: int, count: int, size: int, device: torch.device) -> None:
        self.device = device
        self._solids: list[list[Solid]] = [make_object(first_seed + index) for index in range(count)]
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

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Solids]:
        """Pictures (B, 3, size, size) in [-1, 1], and the objects, on the pool's device."""
        pixels = torch.from_numpy(self._pictures[indices]).to(self.device)
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        return images, pack([self._solids[index] for index in indices]).to(self.device)

    def _chunk(self, path: Path, start: int, size: int) -> np.ndarray:
        if path.exists():
            return np.load(path)
        solids = self._solids[start : start + _CHUNK]
        pictures = []
        for first in range(0, len(solids), _DRAWN_AT_ONCE):
            views = render_views(
                pack(solids[first : first + _DRAWN_AT_ONCE]).to(self.device), [Camera.orbit()], size, supersampling=1
            )
            pixels = (over_white(views[:, 0]) * 255).round().to(torch.uint8)
            pictures.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        drawn = np.concatenate(pictures)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, drawn)
        partial.replace(path)
        return drawn

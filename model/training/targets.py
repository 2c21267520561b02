"""The teacher's LL bands of a pool's objects, kept in a file once they were computed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .config import ConfigError


class KeptBands:
    """Bands in float16 in a sparse file: 0.4 MB an object of the small preset; computing them is a fifth of a step.

    The first time, too, an object's bands are those of the file: a run that was stopped and goes on sees the same.

    Args:
        folder: of the run; files of another teacher there are removed.
        teacher: whose bands they are.
        objects: says which objects they are, and in which precision they are computed.
        count: objects of the pool.
        shape: of one object's LL bands, (3, C, R, R).

    Raises:
        ConfigError: the disk has no room.
    """

    def __init__(self, folder: Path, teacher: nn.Module, objects: str, count: int, shape: tuple[int, ...]) -> None:
        digest = hashlib.sha256(objects.encode())
        for value in teacher.state_dict().values():
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        name = f"ll_{count}_{digest.hexdigest()[:12]}"
        for old in folder.glob("ll_*.bands"):
            if old.stem != name:
                old.with_suffix(".known").unlink(missing_ok=True)
                old.unlink()
        bands, known = folder / f"{name}.bands", folder / f"{name}.known"
        size = 2 * count * int(np.prod(shape))
        if not bands.exists() or bands.stat().st_size != size:
            # Without its bands nothing is known.
            known.unlink(missing_ok=True)
            free = shutil.disk_usage(folder).free
            if free < size:
                raise ConfigError(
                    f"keep_targets needs {size >> 20} MiB in {folder}, which has {free >> 20} free: leave it out."
                )
        self._bands = _mapped(bands, np.float16, (count, *shape))
        self._known = _mapped(known, np.uint8, (count,))

    def of(self, chosen: NDArray[np.integer], compute: Callable[[NDArray[np.integer]], Tensor]) -> Tensor:
        """Returns the LL bands (B, 3, C, R, R) float32 of objects; `compute` makes those that are not there yet."""
        missing = np.unique(chosen[self._known[chosen] == 0])
        if missing.size:
            self._bands[missing] = compute(missing).cpu().numpy()
            # What is known must be on the disk before it is said to be.
            self._bands.flush()
            self._known[missing] = 1
        return torch.from_numpy(self._bands[chosen].astype(np.float32))


def _mapped(path: Path, kind: type, shape: tuple[int, ...]) -> np.memmap:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if not path.exists() or path.stat().st_size != size:
        with path.open("wb") as file:
            file.truncate(size)
    return np.memmap(path, kind, "r+", shape=shape)

"""Reading a triplane at points on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..array_types import Array
from ..geometry.triplane import PLANE_AXES
from .field import LatticeIndex

_COLUMNS, _ROWS = ([axes[i] for axes in PLANE_AXES] for i in (0, 1))
# Few enough that what is read of them stays in a core's cache.
_READ_AT_ONCE = 8192


class PlaneSampler:
    """Reads a triplane bilinearly, `align_corners=False`, border padding, as the renderer graph does.

    Texels are kept channels last, so that the four around a point are two runs of memory and a sample is a sum over
    four weights: several times as fast as ONNX Runtime's GridSample, which goes channel by channel.

    Args:
        triplane: (3, C, H, W) float32, H = W.
    """

    def __init__(self, triplane: Array) -> None:
        self._channels, self._side = triplane.shape[1], triplane.shape[3]
        # A border of one texel, so that the four neighbours of any point exist.
        wide = np.pad(triplane.transpose(0, 2, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        texels, texel = np.ascontiguousarray(wide).reshape(-1), 4 * self._channels
        # Each texel with the one to its right as one item, so items overlap. NumPy copies them by index without holding
        # the interpreter's lock.
        self._pairs = np.ndarray(len(texels) // self._channels - 1, f"V{2 * texel}", texels, strides=(texel,))

    def at(self, points: Array) -> Array:
        """Features (N, 3C) at points (N, 3), the planes' one after another; outside the cube the border continues."""
        along = self._texels(points.T)
        across, down = along[_COLUMNS], along[_ROWS]
        for plane, (_, _, sign) in enumerate(PLANE_AXES):
            if sign < 0:
                np.subtract(self._side + 1, down[plane], out=down[plane])
        features = np.empty((len(points), 3, self._channels), np.float32)
        self._read(np.arange(3, dtype=np.float32)[:, None], across, down, features.transpose(1, 0, 2))
        return features.reshape(len(points), -1)

    def lattice(self, axis: Array) -> Callable[[LatticeIndex], Array]:
        """Features at points of a lattice, read once for each pair of coordinates instead of for each point.

        Args:
            axis: (n,) coordinates, the same along x, y and z.

        Returns:
            From three arrays (K,) of indices into `axis` to features (K, 3C), as `at` has them.
        """
        count, across = len(axis), self._texels(axis)
        tables = np.empty((3, count, count, self._channels), np.float32)
        each = max(1, _READ_AT_ONCE // count)
        for plane, (_, _, sign) in enumerate(PLANE_AXES):
            rows = across if sign > 0 else self._side + 1 - across
            for start in range(0, count, each):
                part = slice(start, start + each)
                wide, down = np.broadcast_arrays(across, rows[part, None])
                self._read(np.float32(plane), wide, down, tables[plane, part])
        places = tables.reshape(-1).view(f"V{4 * self._channels}")

        def at(index: LatticeIndex) -> Array:
            found = np.empty((len(index[0]), 3), np.intp)
            for plane, (column, row, _) in enumerate(PLANE_AXES):
                np.multiply(index[row], count, out=found[:, plane])
                found[:, plane] += index[column] + plane * count**2
            return places[found.reshape(-1)].view(np.float32).reshape(len(found), -1)

        return at

    def _texels(self, coordinates: Array) -> Array:
        """[-1, 1], or beyond, to places among the bordered texels, whose middles lie at whole numbers."""
        half = np.float32(self._side / 2)
        places = coordinates * half
        places += half + np.float32(0.5)
        return np.clip(places, np.float32(0.5), np.float32(self._side + 0.5), out=places)

    def _read(self, planes: Array | np.float32, across: Array, down: Array, out: Array) -> None:
        """Puts features of planes (...) at texels across and down (...) into `out` (..., C).

        In few operations on many points: each of them hands the interpreter's lock to the thread that reads others.
        """
        left, top = np.floor(across), np.floor(down)
        u, v = across - left, down - top
        weights = np.empty((*across.shape, 4), np.float32)
        np.multiply(u, v, out=weights[..., 3])
        np.subtract(v, weights[..., 3], out=weights[..., 2])
        np.subtract(u, weights[..., 3], out=weights[..., 1])
        np.subtract(1 - u, weights[..., 2], out=weights[..., 0])
        # Whole numbers of float32 as far as 2^24, which three planes of 2,300 texels a side do not reach.
        top += np.float32(self._side + 2) * planes
        top *= self._side + 2
        top += left
        places = np.empty((*across.shape, 2), np.intp)
        places[..., 0] = top
        np.add(places[..., 0], self._side + 2, out=places[..., 1])
        texels = self._pairs[places.reshape(-1)].view(np.float32).reshape(*across.shape, 4, self._channels)
        # `einsum` would hold the lock; products as small as these start no threads of BLAS.
        np.matmul(weights[..., None, :], texels, out=out[..., None, :])

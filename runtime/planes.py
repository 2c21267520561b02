"""The triplane's geometry, and reading it at points on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
LatticeIndex = Sequence[NDArray[np.integer]]

# (column, row, sign of row): plane 0 = XY, 1 = XZ, 2 = YZ; a row runs along sign * axis.
PLANE_AXES = ((0, 1, -1), (0, 2, 1), (2, 1, -1))
# Few enough that what is read of them stays in a core's cache.
_READ_AT_ONCE = 8192


class PlaneSampler:
    """Reads a triplane bilinearly, `align_corners=False`, border padding, as the renderer graph does.

    Between four texels a, b, c, d the value is a + u (b - a) + v (c - a) + u v (a - b - c + d). The four terms are kept
    side by side, channels last, so that a sample is one run of memory and a sum over four weights: several times as
    fast as ONNX Runtime's GridSample, which goes channel by channel.

    Args:
        triplane: (3, C, H, W) float32, H = W.
    """

    def __init__(self, triplane: Array) -> None:
        self._channels, self._side = triplane.shape[1], triplane.shape[3]
        # A border of one texel, so that the four neighbours of any point exist.
        wide = np.pad(triplane, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge").transpose(0, 2, 3, 1)
        a, b, c, d = wide[:, :-1, :-1], wide[:, :-1, 1:], wide[:, 1:, :-1], wide[:, 1:, 1:]
        terms = np.concatenate([a, b - a, c - a, a - b - c + d], axis=-1)
        # Each place as one item: NumPy copies those by index without holding the interpreter's lock.
        self._terms = terms.reshape(3, -1).view(f"V{16 * self._channels}")

    def at(self, points: Array) -> Array:
        """Features (N, 3C) at points (N, 3), the planes' one after another; outside the cube the border continues."""
        features = np.empty((len(points), 3 * self._channels), np.float32)
        for plane, (column, row, sign) in enumerate(PLANE_AXES):
            self._read(plane, points[:, column], sign * points[:, row], self._part(features, plane))
        return features

    def lattice(self, axis: Array) -> Callable[[LatticeIndex], Array]:
        """Features at points of a lattice, read once for each pair of coordinates instead of for each point.

        Args:
            axis: (n,) coordinates, the same along x, y and z.

        Returns:
            From three arrays (K,) of indices into `axis` to features (K, 3C), as `at` has them.
        """
        count = len(axis)
        tables = np.empty((3, count * count, self._channels), np.float32)
        each = max(1, _READ_AT_ONCE // count)
        for plane, (_, _, sign) in enumerate(PLANE_AXES):
            for start in range(0, count, each):
                down = sign * axis[start : start + each]
                part = tables[plane, start * count : (start + len(down)) * count]
                self._read(plane, np.tile(axis, len(down)), np.repeat(down, count), part)

        def at(index: LatticeIndex) -> Array:
            features = np.empty((len(index[0]), 3 * self._channels), np.float32)
            for plane, (column, row, _) in enumerate(PLANE_AXES):
                self._part(features, plane)[:] = tables[plane].take(index[row] * count + index[column], 0)
            return features

        return at

    def _part(self, features: Array, plane: int) -> Array:
        return features[:, plane * self._channels : (plane + 1) * self._channels]

    def _read(self, plane: int, across: Array, down: Array, out: Array) -> None:
        """Fills out (N, C) from one plane; across and down are (N,) in [-1, 1], or beyond."""
        half, first, last = np.float32(self._side / 2), np.float32(0.5), np.float32(self._side + 0.5)
        u = np.clip(across * half + (half + first), first, last)
        v = np.clip(down * half + (half + first), first, last)
        left, top = u.astype(np.int32), v.astype(np.int32)
        weights = np.ones((len(u), 4), np.float32)
        np.subtract(u, left, out=weights[:, 1])
        np.subtract(v, top, out=weights[:, 2])
        np.multiply(weights[:, 1], weights[:, 2], out=weights[:, 3])
        # Indices of the platform's own width, which NumPy need not convert while it holds the interpreter's lock.
        index = (top * (self._side + 1) + left).astype(np.intp)
        terms = self._terms[plane][index].view(np.float32).reshape(-1, 4, self._channels)
        # A matrix product would go to BLAS, whose threads fight over the cores with those that read other points.
        np.einsum("nk,nkc->nc", weights, terms, out=out)

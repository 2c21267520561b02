"""The triplane's geometry, and reading it at points on a CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# (column, row, sign of row): plane 0 = XY, 1 = XZ, 2 = YZ; a row runs along sign * axis.
PLANE_AXES = ((0, 1, -1), (0, 2, 1), (2, 1, -1))


class PlaneSampler:
    """Reads a triplane bilinearly, `align_corners=False`, border padding, as the renderer graph does.

    Texels are kept channels last, so that a texel is one run of memory: four of them and three blends make a sample,
    several times faster than ONNX Runtime's GridSample, which goes channel by channel.

    Args:
        triplane: (3, C, H, W) float32, H = W.
    """

    def __init__(self, triplane: Array) -> None:
        self._channels, self._side = triplane.shape[1], triplane.shape[3]
        # A border of one texel, so that the four neighbours of any point exist.
        wide = np.pad(triplane, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        self._texels = np.ascontiguousarray(wide.transpose(0, 2, 3, 1)).reshape(3, -1, self._channels)
        # Times a column of weights this repeats each weight over the channels, faster than broadcasting does.
        self._repeat = np.ones((1, self._channels), np.float32)

    def at(self, points: Array) -> Array:
        """Features (N, 3C) at points (N, 3), the planes' one after another; outside the cube the border continues."""
        features = np.empty((len(points), 3 * self._channels), np.float32)
        stride, half = self._side + 2, np.float32(self._side / 2)
        first, last = np.float32(0.5), np.float32(self._side + 0.5)
        for plane, (column, row, sign) in enumerate(PLANE_AXES):
            u = np.clip(points[:, column] * half + (half + first), first, last)
            v = np.clip(points[:, row] * (sign * half) + (half + first), first, last)
            left, top = u.astype(np.int32), v.astype(np.int32)
            index, texels = top * stride + left, self._texels[plane]
            across, down = ((w[:, None] @ self._repeat) for w in (u - left, v - top))
            upper = _blend(texels.take(index, 0), texels.take(index + 1, 0), across)
            index += stride
            lower = _blend(texels.take(index, 0), texels.take(index + 1, 0), across)
            features[:, plane * self._channels : (plane + 1) * self._channels] = _blend(upper, lower, down)
        return features


def _blend(first: Array, second: Array, weight: Array) -> Array:
    """first + weight * (second - first), in place of `second`."""
    second -= first
    second *= weight
    second += first
    return second

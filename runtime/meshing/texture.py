"""A colour for every texel of a surface that is laid out flat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..array_record import ArrayRecord
from ..array_types import Array
from .charts import rasterised, unfold

# Points and unit normals (N, 3) to colours (N, 3) in [0, 1].
Shade = Callable[[Array, Array], Array]


@dataclass(frozen=True, eq=False)
class Texture(ArrayRecord):
    """An image that is laid on a mesh.

    Attributes:
        uv: (F, 3, 2) float32 in [0, 1], where each face's corners lie in it: from the left, and from the bottom.
        image: (S, S, 3) uint8, sRGB.
    """

    uv: Array
    image: NDArray[np.uint8]


def baked(vertices: Array, faces: NDArray[np.int64], normals: Array, size: int, shade: Shade) -> Texture:
    """Lays a surface out flat and colours it.

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices, of closed surfaces.
        normals: (V, 3) unit vectors.
        size: side of the texture in texels.
        shade: colours of points.

    Raises:
        OptionError: the texture has no room for so many charts.
    """
    from scipy.ndimage import distance_transform_edt

    corners = unfold(vertices, faces, size)
    face, texel, shares = rasterised(corners, size)
    texel, first = np.unique(texel, return_index=True)
    of_face, shares = faces[face[first]], shares[first]
    points, outward = (np.einsum("kc,kcd->kd", shares, values[of_face]) for values in (vertices, normals))
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-12)
    image = np.zeros((size * size, 3), np.uint8)
    image[texel] = np.round(shade(points, outward) * 255)
    free = np.ones(size * size, bool)
    free[texel] = False
    # What lies between charts takes the nearest one's colour: viewers mix it in at seams and from afar.
    row, column = distance_transform_edt(free.reshape(size, size), return_distances=False, return_indices=True)
    uv = np.stack([corners[..., 0] / size, 1 - corners[..., 1] / size], axis=-1)
    return Texture(uv.astype(np.float32), image.reshape(size, size, 3)[row, column])

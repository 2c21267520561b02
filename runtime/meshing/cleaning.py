"""Making a surface that marching cubes found one that people can use: no crumbs, no ripple, fewer triangles."""

from __future__ import annotations

import numpy as np

from ..array_types import Array, Faces
from ..errors import OptionError, install_hint

# Parts of less volume than this share of the largest are dropped.
_CRUMB = 0.01
# Steps of smoothing, forward and back by turns.
_SMOOTHING = (0.5, -0.53) * 6
# Shares of the wanted number of triangles that are tried until the mesh is closed.
_TRIES = (1.0, 0.98, 0.95)


def without_crumbs(vertices: Array, faces: Faces) -> tuple[Array, Faces]:
    """Drops closed parts that enclose less than a hundredth of the largest one's volume.

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices, of closed surfaces.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(vertices)
    edges = coo_array((np.ones(2 * len(faces), bool), (faces[:, :2].ravel(), faces[:, 1:].ravel())), (count, count))
    _, part = connected_components(edges, directed=False)
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    # Signed tetrahedra with the origin add up to the volume of a closed part; a hollow's is below 0.
    volumes = np.bincount(part[faces[:, 0]], np.einsum("fi,fi->f", a, np.cross(b, c)) / 6)
    kept = np.abs(volumes) >= _CRUMB * np.abs(volumes).max()
    faces = faces[kept[part[faces[:, 0]]]]
    used = np.unique(faces)
    renumbered = np.full(count, -1, np.int64)
    renumbered[used] = np.arange(len(used))
    return vertices[used], renumbered[faces]


def smoothed(vertices: Array, faces: Faces) -> Array:
    """Takes the ripple of texels out of a surface (Taubin 1995: each step back undoes the shrinking of the one before).

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices, of closed surfaces.
    """
    from scipy.sparse import csr_array

    count = len(vertices)
    edges = (faces.ravel(), faces[:, [1, 2, 0]].ravel())
    # Of a closed surface every edge belongs to two faces, and is here once in each direction.
    neighbours = csr_array((np.ones(3 * len(faces), np.float32), edges), (count, count))
    number = np.maximum(neighbours.sum(axis=1), 1).astype(np.float32)[:, None]
    result = vertices
    for factor in _SMOOTHING:
        result = result + np.float32(factor) * (neighbours @ result / number - result)
    return np.clip(result, -1, 1)


def decimated(vertices: Array, faces: Faces, count: int) -> tuple[Array, Faces]:
    """Merges edges where that moves the surface least (Garland and Heckbert 1997) until `count` triangles are left.

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices, of closed surfaces.
        count: triangles wanted; as they are where there are no more than these.

    Raises:
        OptionError: fast-simplification is not installed.
    """
    if count >= len(faces):
        return vertices, faces
    try:
        from fast_simplification import simplify
    except ImportError:
        raise OptionError(
            "Fewer faces need fast-simplification, which is not installed.", install_hint("mesh")
        ) from None
    # Merging edges may tear a thin part, which it does not at a slightly smaller count; where it always does,
    # the first is as good as any.
    results = []
    for wanted in _TRIES:
        fewer, triangles = simplify(vertices, faces.astype(np.int32), target_count=int(wanted * count))
        results.append(_unpinched(np.clip(fewer, -1, 1).astype(np.float32), triangles.astype(np.int64)))
        if _is_closed(results[-1][1]):
            return results[-1]
    return results[0]


def _is_closed(faces: Faces) -> bool:
    """Whether every edge has two faces, which run along it in opposite directions."""
    start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    there, back = (np.sort(a * (faces.max() + 1) + b) for a, b in ((start, end), (end, start)))
    return bool((there == back).all() and (np.diff(there) > 0).all())


def _unpinched(vertices: Array, faces: Faces) -> tuple[Array, Faces]:
    """Makes every edge one of two faces again, where merging edges pressed two sheets onto one another.

    Pairs of faces on the same three vertices go, and a vertex in which several fans of faces meet becomes several.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, same, number = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True)
    faces = faces[number[same] == 1]
    # A corner belongs to the fan of the corner beside it at the same vertex, across an edge of exactly two faces.
    start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    key = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
    order = np.argsort(key, kind="stable")
    _, first, count = np.unique(key[order], return_index=True, return_counts=True)
    one, other = order[first[count == 2]], order[first[count == 2] + 1]
    after = np.arange(len(start)).reshape(-1, 3)[:, [1, 2, 0]].ravel()
    # The two faces of an edge run along it in opposite directions.
    pairs = (np.concatenate([one, after[one]]), np.concatenate([after[other], other]))
    edges = coo_array((np.ones(len(pairs[0]), bool), pairs), (len(start), len(start)))
    _, fan = connected_components(edges, directed=False)
    _, corner = np.unique(fan, return_index=True)
    return vertices[start[corner]], fan.reshape(-1, 3).astype(np.int64)

"""What is known of objects from posed images of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.geometry.cameras import Camera
from runtime.geometry.rays import camera_rays
from runtime.geometry.triplane import PLANE_AXES

from ..supervision import SKIN, Points, SupervisedRays, importance
from .drawing import OrthographicViews, place_of
from .posed import ViewFiles

# Half of how thick a sheet without an inside is taken to be.
_SHEET = 0.02
# Spread of points about surfaces that are seen, in scene units, and the views that such points are taken from.
_ABOUT, _SEEN_FROM = 0.03, 3
# The share of rays through pixels where something is seen; the others are uniform.
_AIMED = 0.5


@dataclass(frozen=True)
class ViewTruth:
    """Truth of B objects as posed images, read as they are needed."""

    files: Sequence[ViewFiles]

    def points(self, count: int, rng: np.random.Generator) -> Points:
        """Half of the points uniform in the cube, half about surfaces that are seen.

        A point that some view sees past is outside, any other inside: behind a surface there is the object, as far as
        anybody can see. Sheets, which the orthographic views tell, are thickened. Where the views have no depth,
        nothing is known of the points.
        """
        return Points(*_stacked([_points_of(files, count, rng) for files in self.files]))

    def rays(self, count: int, rng: np.random.Generator) -> SupervisedRays:
        """Pixels of one random view an object, half of them from where something is seen."""
        return SupervisedRays(*_stacked([_rays_of(files, count, rng) for files in self.files]))


def _rays_of(files: ViewFiles, count: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """What `SupervisedRays` holds, for one object."""
    view = int(rng.integers(len(files.cameras)))
    camera, picture = files.cameras[view], files.rgba(view)
    side = picture.shape[0]
    flat = picture.reshape(-1, 4)
    seen = np.flatnonzero(flat[:, 3])
    aimed = int(_AIMED * count) if seen.size else 0
    pixels = rng.integers(0, side * side, count)
    if aimed:
        pixels[:aimed] = rng.choice(seen, aimed)
    weight = importance(aimed / count, (flat[pixels, 3] > 0) * len(flat) / max(seen.size, 1))
    rgba = flat[pixels].astype(np.float32) / 255
    rgba[:, :3] *= rgba[:, 3:]
    rays = camera_rays(camera, side, side)
    chosen = (rays.directions[pixels], rays.near[pixels], rays.far[pixels])
    return rays.origin, *chosen, rgba, weight.astype(np.float32)


def _points_of(files: ViewFiles, count: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """What `Points` holds, for one object."""
    positions, colour = rng.uniform(-1, 1, (count, 3)), np.zeros((count, 3), np.float32)
    inside, coloured = np.zeros(count, bool), np.zeros(count, bool)
    if not files.depths:
        return positions.astype(np.float32), inside, np.zeros(count, np.float32), colour, coloured
    depths = [files.depth(view) for view in range(len(files.depths))]
    near = count - count // 2
    share = -(-near // _SEEN_FROM)
    about = []
    views = rng.permutation(len(depths))[:_SEEN_FROM]
    for view in views:
        camera, depth = files.cameras[view], depths[view].reshape(-1)
        seen = np.flatnonzero(depth)
        pixels = rng.choice(seen, share) if seen.size else rng.integers(0, depth.size, share)
        rays = camera_rays(camera, *depths[view].shape)
        toward = rays.directions[pixels]
        along = depth[pixels] / (toward @ camera.forward) + _ABOUT * rng.standard_normal(share)
        about.append((rays.origin + along[:, None] * toward, files.rgba(view).reshape(-1, 4)[pixels, :3] / 255))
    some = min(near, share * len(about))
    positions[:some] = np.concatenate([place for place, _ in about])[:some]
    colour[:some] = np.concatenate([shade for _, shade in about])[:some]
    gaps = np.stack([_gap(camera, depth, positions) for camera, depth in zip(files.cameras, depths, strict=True)])
    density = np.mean([_density_about(files.cameras[v], depths[v], positions, gaps[v]) for v in views], axis=0)
    within = (np.abs(positions) <= 1).all(1)
    weight = importance(some / count, 8 * density) * within
    inside, close = (gaps < 0).all(0) & within, (gaps < SKIN).all(0) & within
    positions = positions.clip(-1, 1)
    if files.orthographic is not None:
        along_axes = _orthographic_gaps(files.six_views(), positions)
        inside &= (along_axes < 0).all((0, 1))
        inside |= _in_sheet(along_axes) & (gaps < _SHEET).all(0)
    coloured[:some] = close[:some]
    return positions.astype(np.float32), inside, weight.astype(np.float32), colour, coloured


def _gap(camera: Camera, depth: NDArray[np.floating], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) how far points (N, 3) are in front of what a camera sees in their pixels; infinity where it sees nothing."""
    side = depth.shape[0]
    columns, rows = ((camera.project(positions) + 1) / 2 * side).astype(int).clip(0, side - 1).T
    seen = depth[rows, columns]
    return np.where(seen > 0, seen, np.inf) - (positions - camera.position) @ camera.forward


def _density_about(
    camera: Camera, depth: NDArray[np.floating], positions: NDArray[np.float64], gap: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N,) probability density, per unit of volume, of points about what a camera sees; every seen pixel has as many.

    Args:
        camera: whose pixels they are.
        depth: (S, S), 0 where nothing is seen.
        positions: (N, 3).
        gap: (N,) of `_gap`.
    """
    away = positions - camera.position
    along = away @ camera.forward
    cosine = along / np.linalg.norm(away, axis=1)
    pixel = (2 * along * np.tan(np.radians(camera.fov) / 2) / depth.shape[0]) ** 2 * cosine
    normal = np.exp(-0.5 * (gap / cosine / _ABOUT) ** 2) / (_ABOUT * np.sqrt(2 * np.pi))
    framed = (np.abs(camera.project(positions)) <= 1).all(1)
    return framed * normal / (pixel * max(np.count_nonzero(depth), 1))


def _orthographic_gaps(views: OrthographicViews, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 2, N) as `_gap`, of the six orthographic views."""
    side, gaps = views.depth.shape[2], np.empty((3, 2, len(positions)))
    for plane, (column, row, sign) in enumerate(PLANE_AXES):
        texels = ((positions[:, (column, row)] * (1, sign) + 1) / 2 * side).astype(int).clip(0, side - 1)
        along = positions[:, 3 - column - row]
        for index, end in enumerate((1, -1)):
            seen = views.depth[plane, index][texels[:, 1], texels[:, 0]]
            gaps[plane, index] = np.where(seen > 0, end * (along - place_of(seen)), np.inf)
    return gaps


def _in_sheet(gaps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) where points are by a sheet, whose two sides are in one place: open meshes are made of such.

    Args:
        gaps: (3, 2, N) along the axes, from both ends of each.
    """
    thin = np.isfinite(gaps).all(1) & (gaps.sum(1) > -2 * _SHEET)
    return (thin & (gaps < _SHEET).all(1)).any(0)


def _stacked(objects: Sequence[tuple[NDArray[Any], ...]]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.stack(values)) for values in zip(*objects, strict=True)]

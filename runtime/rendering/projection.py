"""The input image's own pixels on what it shows, seen from anywhere.

         P   a drawn point takes the image's colour as far as
        /    - light from P reaches the input camera (the field's own transmittance along that ray)
view   /     - the surface faces it, and does not fall off steeply there
      o----> - it is away from the mask's edge, whose pixels carry the background
  input camera
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from ..geometry.cameras import Camera
from ..geometry.rays import Rays, camera_rays
from ..preprocessing.regions import blurred
from .field import Field
from .marching import march
from .occupancy import OccupancyGrid
from .parallel import WorkerPool

# Pixels and samples of the look from the input camera.
SIDE, SAMPLES = 64, 48
# A drawn point is a mean over a soft surface: it is looked for this much before where it is, in scene units.
_MARGIN = 0.05
# Transmittance, cosine to the surface, share of the mask around a pixel: where they begin to count, and count fully.
_SEEN, _FACING, _INSIDE = (0.1, 0.4), (0.2, 0.5), (0.8, 1.0)
# Radius, in pixels of SIDE, of what counts as around.
_AROUND = 1
# Of less alpha a drawn point has no depth to speak of.
_LEAST_ALPHA = 0.05


@dataclass(frozen=True)
class Projection:
    """An image that is projected onto a scene.

    Attributes:
        camera: from where the image was taken.
        image: (D, D, 3) in [0, 1].
        weight: (SIDE, SIDE) in [0, 1], how much each of its pixels is to be trusted.
        passed: (SAMPLES + 1, SIDE * SIDE) optical depth along the camera's rays before each interval.
        near: (SIDE * SIDE,) where the first interval begins.
        step: (SIDE * SIDE,) length of the intervals.
    """

    camera: Camera
    image: Array
    weight: Array
    passed: Array
    near: Array
    step: Array

    @classmethod
    def make(
        cls, field: Field, grid: OccupancyGrid, pool: WorkerPool, camera: Camera, image: Array, mask: Array
    ) -> Projection:
        """Looks at a scene from the input camera.

        Args:
            field: points (N, 3) to colour (N, 3) and density (N,).
            grid: its occupancy grid.
            pool: worker pool.
            camera: from where the image was taken, at the middle of a square image.
            image: (D, D, 3) in [0, 1].
            mask: (S, S) in [0, 1], its alpha; S is a multiple of SIDE, as that of every model is.
        """
        rays, optical, alpha, depth = look_from(field, grid, pool, camera, SIDE, SAMPLES)
        passed = np.concatenate([np.zeros((1, SIDE * SIDE), np.float32), optical.cumsum(axis=0)])
        step = (rays.far - rays.near) / np.float32(SAMPLES)
        shape = (SIDE, SIDE)
        weight = _trust(alpha.reshape(shape), depth.reshape(shape), mask, camera)
        return cls(camera, image, weight, passed, rays.near, np.maximum(step, np.float32(1e-6)))

    def blend(self, colour: Array, alpha: Array, depth: Array, rays: Rays) -> Array:
        """Replaces colours of drawn rays by the image's where it shows what they hit.

        Args:
            colour: (R, 3), premultiplied by alpha.
            alpha: (R,) in [0, 1].
            depth: (R,) along the viewing axis.
            rays: that were drawn.

        Returns:
            (R, 3), premultiplied by alpha.
        """
        hit = np.flatnonzero(alpha > _LEAST_ALPHA)
        if not hit.size:
            return colour
        points = rays.origin + rays.directions[hit] * (depth[hit] / rays.cosine[hit])[:, None]
        places = self.camera.project(points).astype(np.float32)
        share = self._share(points, places)
        image = bilinear(self.image, places)
        result = colour.copy()
        result[hit] += share[:, None] * (alpha[hit, None] * image - colour[hit])
        return result

    def paint(self, points: Array, normals: Array, colours: Array) -> Array:
        """Replaces colours of surface points by the image's where it shows them.

        Args:
            points: (V, 3) on a surface.
            normals: (V, 3) unit vectors, outward.
            colours: (V, 3) in [0, 1].
        """
        toward = self.camera.position.astype(np.float32) - points
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
        places = self.camera.project(points).astype(np.float32)
        # Of a soft surface the cut is in the middle: light has to come out of half of it.
        outside = points + np.float32(_MARGIN) * normals
        share = self._share(outside, places) * _ramp((toward * normals).sum(1), *_FACING)
        return colours + share[:, None] * (bilinear(self.image, places) - colours)

    def _share(self, points: Array, places: Array) -> Array:
        """(K,) in [0, 1], how much of each point's colour is the image's."""
        away = np.linalg.norm(points - self.camera.position.astype(np.float32), axis=1) - np.float32(_MARGIN)
        seen = np.zeros(len(points), np.float32)
        for index, part in _corners(places, SIDE, SIDE):
            at = np.clip((away - self.near[index]) / self.step[index], 0, SAMPLES)
            before = np.minimum(at.astype(np.int32), SAMPLES - 1)
            low, high = self.passed[before, index], self.passed[before + 1, index]
            seen += part * np.exp(-(low + (at - before) * (high - low)))
        inside = (np.abs(places) < 1).all(axis=1)
        return _ramp(seen, *_SEEN) * bilinear(self.weight[..., None], places)[:, 0] * inside


def look_from(
    field: Field, grid: OccupancyGrid, pool: WorkerPool, camera: Camera, side: int, samples: int
) -> tuple[Rays, Array, Array, Array]:
    """Looks at a scene from the input camera.

    Args:
        field: points (N, 3) to colour (N, 3) and density (N,).
        grid: its occupancy grid.
        pool: worker pool.
        camera: from where the image was taken, at the middle of a square image.
        side: of the look, in pixels.
        samples: of each ray.

    Returns:
        The rays, R = side * side; (samples, R) optical depth of each interval; (R,) alpha; (R,) depth. All float32.
    """
    rays = camera_rays(camera, side, side)
    optical = np.zeros((samples, side * side), np.float32)
    alpha, depth = np.zeros(side * side, np.float32), np.zeros(side * side, np.float32)

    def look(part: slice) -> None:
        index = np.arange(part.start, part.stop)
        index = index[rays.hits[index]]
        found = np.zeros((samples, len(index)), np.float32)
        _, alpha[index], depth[index] = march(field, grid, rays.take(index), samples, found)
        optical[:, index] = found

    pool.run(look, side * side, samples // 4)
    return rays, optical, alpha, depth


def _trust(alpha: Array, depth: Array, mask: Array, camera: Camera) -> Array:
    """(SIDE, SIDE) in [0, 1]: away from the mask's edge, and where the surface faces the camera."""
    # Depth of what is solid, carried on a little beyond its edge, so that the edge itself is no slope.
    solid = alpha * (alpha > 0.5)
    near = blurred(solid, 1)
    smooth = np.where(near > 0.05, blurred(solid * depth, 1) / np.maximum(near, 1e-6), 0)
    pixel = 2 * np.tan(np.radians(camera.fov) / 2) * np.maximum(smooth, 0.1) / SIDE
    slope = np.hypot(*np.gradient(smooth)) / pixel
    facing = 1 / np.sqrt(1 + np.square(slope))
    cells = mask.shape[0] // SIDE
    small = mask.reshape(SIDE, cells, SIDE, cells).mean((1, 3))
    if mask.min() > 0.5:  # The background was kept: what is drawn is the only mask there is.
        small = (alpha > 0.5).astype(np.float32)
    inside = blurred(small, _AROUND)
    weight: Array = (_ramp(facing, *_FACING) * _ramp(inside, *_INSIDE) * (near > 0.05)).astype(np.float32)
    return blurred(weight, 1)


def _ramp(values: Array, low: float, high: float) -> Array:
    """0 at `low`, 1 at `high`, smooth between."""
    t = np.clip((values - low) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _corners(places: Array, height: int, width: int) -> list[tuple[NDArray[np.int32], Array]]:
    """Index and weight (K,) of the four pixels around places (K, 2) in [-1, 1], the border repeated."""
    x, y = (places[:, 0] + 1) * (width / 2) - 0.5, (places[:, 1] + 1) * (height / 2) - 0.5
    left, top = np.floor(x), np.floor(y)
    u, v = x - left, y - top
    columns = [np.clip(left + d, 0, width - 1).astype(np.int32) for d in (0, 1)]
    rows = [np.clip(top + d, 0, height - 1).astype(np.int32) * np.int32(width) for d in (0, 1)]
    shares = ((1 - v, rows[0]), (v, rows[1]))
    return [(row + column, part * a) for part, row in shares for a, column in ((1 - u, columns[0]), (u, columns[1]))]


def bilinear(image: Array, places: Array) -> Array:
    """(K, C) of an image (H, W, C) at places (K, 2) in [-1, 1]."""
    flat = image.reshape(-1, image.shape[2])
    result = np.zeros((len(places), image.shape[2]), np.float32)
    for index, part in _corners(places, *image.shape[:2]):
        result += part[:, None] * flat[index]
    return result

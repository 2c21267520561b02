"""What is known of procedural objects: everything, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.geometry.cameras import Camera
from runtime.geometry.rays import clip_to_cube

from ..procedural.solids import Solids, distance_and_colour, first_hits
from ..supervision import SKIN, Points, SupervisedRays, importance
from .framing import random_camera

# How far points go beyond the solids that they are drawn around, in scene units; and rays beyond the rectangle around
# the object, in images whose half side is 1.
_BEYOND = 0.03
# Points whose rectangle in an image stands for the object's.
_OUTLINE = 256
# The share of points, and of rays, that are drawn around the object; the others are uniform.
_NEAR, _AIMED = 0.5, 0.75

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SolidTruth:
    """Exact truth of procedural objects."""

    solids: Solids

    def points(self, count: int, rng: np.random.Generator) -> Points:
        """Half of the points uniform in the cube, half around the solids, where surfaces are."""
        solids, near = self.solids, int(_NEAR * count)
        uniform = rng.uniform(-1, 1, (len(solids), count - near, 3))
        places = np.concatenate([uniform, _around_solids(solids, near, rng)], axis=1)
        weight = importance(near / count, 8 * _density_around(solids, places)) * (np.abs(places) <= 1).all(-1)
        positions = torch.from_numpy(places.clip(-1, 1)).float()
        distance, colour = distance_and_colour(solids, positions)
        return Points(positions, distance < 0, torch.from_numpy(weight).float(), colour, distance < SKIN)

    def rays(self, count: int, rng: np.random.Generator) -> SupervisedRays:
        """Rays of one random camera an object, three quarters of them through the rectangle around it."""
        solids, aimed = self.solids, int(_AIMED * count)
        outline = _around_solids(solids, _OUTLINE, rng)
        cameras = [random_camera(rng) for _ in range(len(solids))]
        directions, weight = np.empty((len(solids), count, 3)), np.empty((len(solids), count))
        for index, camera in enumerate(cameras):
            seen = camera.project(outline[index])
            low, high = ((seen.min(0) - _BEYOND).clip(-1, 1), (seen.max(0) + _BEYOND).clip(-1, 1))
            places = rng.uniform(-1, 1, (count, 2))
            places[:aimed] = rng.uniform(low, high, (aimed, 2))
            within = ((places >= low) & (places <= high)).all(-1)
            weight[index] = importance(aimed / count, within * 4 / max(float(np.prod(high - low)), 1e-6))
            directions[index] = _through(camera, places)
        origin = np.stack([c.position for c in cameras])
        near, far = (torch.from_numpy(t).float() for t in clip_to_cube(origin, directions))
        toward, start = torch.from_numpy(directions).float(), torch.from_numpy(origin).float()
        distance, colour = first_hits(solids, start[:, None].expand_as(toward), toward)
        hit = (distance < far)[..., None].float()
        rgba = torch.cat([colour * hit, hit], dim=-1)
        return SupervisedRays(start, toward, near, far, rgba, torch.from_numpy(weight).float())


def _around_solids(solids: Solids, count: int, rng: np.random.Generator) -> Array:
    """(B, count, 3) points uniform in the solids' own boxes, enlarged; every solid gets as many."""
    to_local, half = solids.to_local.numpy(), solids.half.numpy()
    places = np.empty((len(solids), count, 3))
    for index, there in enumerate((solids.kind >= 0).sum(1).tolist()):
        which = rng.integers(0, there, count)
        local = rng.uniform(-1, 1, (count, 3)) * (1 + _BEYOND / half[index, which])
        inverse = np.linalg.inv(to_local[index, :there, :, :3])
        places[index] = np.einsum("nij,nj->ni", inverse[which], local - to_local[index, which, :, 3])
    return places


def _density_around(solids: Solids, places: Array) -> Array:
    """(B, N) the probability density of `_around_solids` at places (B, N, 3), per unit of volume."""
    to_local, half = solids.to_local.numpy(), solids.half.numpy()
    density = np.zeros(places.shape[:2])
    for index, there in enumerate((solids.kind >= 0).sum(1).tolist()):
        frames = to_local[index, :there]
        local = np.einsum("sij,nj->nsi", frames[..., :3], places[index]) + frames[..., 3]
        reach = 1 + _BEYOND / half[index, :there]
        volume = 8 * reach.prod(1) / np.abs(np.linalg.det(frames[..., :3]))
        density[index] = ((np.abs(local) <= reach).all(-1) / volume).mean(1)
    return density


def _through(camera: Camera, places: Array) -> Array:
    """(N, 3) unit vectors of the rays through places (N, 2) of the image, which spans [-1, 1], y down."""
    scale = np.tan(np.radians(camera.fov) / 2)
    local = np.concatenate([places * (scale, -scale), np.full((len(places), 1), -1.0)], axis=1)
    return (local / np.linalg.norm(local, axis=1, keepdims=True)) @ camera.pose[:3, :3].T

"""Exact images of objects by ray casting: what a camera sees, and the six orthographic views of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.array_types import Array
from runtime.geometry.cameras import Camera
from runtime.geometry.rays import camera_rays
from runtime.geometry.triplane import PLANE_AXES

from ..procedural.solids import FAR, Solids, first_hits

_MOST_DEPTH = 65535


class Caster(Protocol):
    """An object that rays can be sent at."""

    def cast(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """First hits.

        Args:
            origins: (N, 3) float32 world.
            directions: (N, 3) float32 of unit length.

        Returns:
            distance: (N,) float32, 1e9 for a miss; colour: (N, 3) float32 in [0, 1], any for a miss.
        """
        ...


@dataclass(frozen=True)
class SolidCaster:
    """One procedural object, a pack of one."""

    solids: Solids

    def cast(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """As in `Caster`."""
        distance, colour = first_hits(self.solids, torch.from_numpy(origins)[None], torch.from_numpy(directions)[None])
        return distance[0].numpy(), colour[0].numpy()


@dataclass(frozen=True)
class OrthographicViews:
    """What is seen of an object along the axis that each plane lacks, from both its ends, laid out as the plane is.

    Attributes:
        rgba: (3, 2, S, S, 4) uint8, alpha 0 or 255; from the axis' positive end first.
        depth: (3, 2, S, S) uint16, where the surface is along the axis: 1 to 65,535 for -1 to 1, 0 for nothing.
    """

    rgba: NDArray[np.uint8]
    depth: NDArray[np.uint16]


def draw_view(caster: Caster, camera: Camera, size: int, supersampling: int = 1) -> tuple[Array, Array]:
    """Draws an object.

    Args:
        caster: the object, inside the cube.
        camera: outside the cube.
        size: side of the image in pixels.
        supersampling: rays per pixel and axis.

    Returns:
        rgba: (size, size, 4) float32 in [0, 1], alpha not premultiplied; depth: (size, size) float32, scene units along
        the viewing axis of the nearest ray's hit in each pixel, 0 where nothing is.
    """
    fine = size * supersampling
    rays = camera_rays(camera, fine, fine)
    near = np.flatnonzero(rays.far > rays.near)
    toward = rays.directions[near]
    distance, colour = caster.cast(np.broadcast_to(rays.origin, toward.shape).copy(), toward)
    hit = distance < FAR / 2
    premultiplied = np.zeros((fine * fine, 4), np.float32)
    premultiplied[near[hit]] = np.concatenate([colour[hit], np.ones((hit.sum(), 1), np.float32)], axis=1)
    along = np.full(fine * fine, np.inf, np.float32)
    along[near[hit]] = distance[hit] * (toward[hit] @ camera.forward.astype(np.float32))
    blocks = (size, supersampling, size, supersampling)
    pixels = premultiplied.reshape(*blocks, 4).mean((1, 3))
    depth = along.reshape(blocks).min((1, 3))
    rgba = np.concatenate([pixels[..., :3] / np.maximum(pixels[..., 3:], 1e-6), pixels[..., 3:]], axis=-1)
    return rgba, np.where(np.isfinite(depth), depth, 0)


def draw_orthographic(caster: Caster, size: int) -> OrthographicViews:
    """The six views of an object, one ray a pixel, size x size each."""
    middles = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    rgba, depth = np.zeros((3, 2, size * size, 4), np.uint8), np.zeros((3, 2, size * size), np.uint16)
    for plane, (column, row, sign) in enumerate(PLANE_AXES):
        axis = 3 - column - row
        for side, end in enumerate((2.0, -2.0)):
            origins = np.empty((size, size, 3), np.float32)
            origins[..., column], origins[..., row], origins[..., axis] = middles, sign * middles[:, None], end
            directions = np.zeros_like(origins)
            directions[..., axis] = -np.sign(end)
            distance, colour = caster.cast(origins.reshape(-1, 3), directions.reshape(-1, 3))
            hit = distance < FAR / 2
            rgba[plane, side, hit, :3], rgba[plane, side, hit, 3] = to_bytes(colour[hit]), 255
            depth[plane, side, hit] = _as_depth(end - np.sign(end) * distance[hit])
    return OrthographicViews(rgba.reshape(3, 2, size, size, 4), depth.reshape(3, 2, size, size))


def render_views(solids: Solids, cameras: Sequence[Camera], size: int, supersampling: int = 2) -> Array:
    """Draws each of B objects from each of V cameras: (B, V, size, size, 4) float32, as `draw_view` does."""
    casters = [SolidCaster(solids[i : i + 1]) for i in range(len(solids))]
    return np.stack([[draw_view(c, camera, size, supersampling)[0] for camera in cameras] for c in casters])


def place_of(depth: NDArray[np.uint16]) -> Array:
    """Where `OrthographicViews.depth` lies along the axis, float32 in [-1, 1]; -1 for nothing."""
    return (np.maximum(depth, 1).astype(np.float32) - 1) * np.float32(2 / (_MOST_DEPTH - 1)) - 1


def to_bytes(values: Array) -> NDArray[np.uint8]:
    """Values in [0, 1] as uint8."""
    return np.clip(np.round(values * 255), 0, 255).astype(np.uint8)


def over_white(rgba: Array) -> Array:
    """(..., 4) not premultiplied, in [0, 1], to (..., 3) over white."""
    return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])


def _as_depth(place: Array) -> NDArray[np.uint16]:
    return (1 + np.round((np.clip(place, -1, 1) + 1) / 2 * (_MOST_DEPTH - 1))).astype(np.uint16)

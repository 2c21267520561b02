"""What training compares with: exact occupancy and colour at points, exact colours along rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.geometry.cameras import Camera
from runtime.geometry.rays import camera_rays, clip_to_cube
from runtime.geometry.triplane import PLANE_AXES

from ..renderer import TriplaneRenderer
from .config import ConfigError, StageConfig
from .data.drawing import OrthographicViews, place_of
from .data.framing import random_camera
from .data.posed import ViewFiles
from .procedural.solids import Solids, distance_and_colour, first_hits

# Points that near outside the surface still have its colour: a density that falls off softly shows them.
_SKIN = 0.04
# Half of how thick a sheet without an inside is taken to be.
_SHEET = 0.02
# Spread of points about surfaces that are seen, in scene units, and the views that such points are taken from.
_ABOUT, _SEEN_FROM = 0.03, 3
_COLOUR_WEIGHT = 2.0
_RAY_WEIGHT = 5.0


@dataclass(frozen=True)
class Points:
    """Points of B objects.

    Attributes:
        positions: (B, N, 3) world.
        inside: (B, N) bool.
        known: (B, N) bool, where that is known.
        colour: (B, N, 3) in [0, 1].
        coloured: (B, N) bool, where that is known.
    """

    positions: Tensor
    inside: Tensor
    known: Tensor
    colour: Tensor
    coloured: Tensor


@dataclass(frozen=True)
class SupervisedRays:
    """Rays of B objects: origin (B, 3), directions (B, R, 3), near and far (B, R), premultiplied RGBA (B, R, 4)."""

    origin: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    rgba: Tensor


class Truth(Protocol):
    """What is known of B objects."""

    def points(self, count: int, rng: np.random.Generator) -> Points:
        """`count` points of each object, on the CPU."""
        ...

    def rays(self, count: int, rng: np.random.Generator) -> SupervisedRays:
        """`count` rays of one camera of each object, on the CPU."""
        ...


@dataclass(frozen=True)
class SolidTruth:
    """Exact truth of procedural objects."""

    solids: Solids

    def points(self, count: int, rng: np.random.Generator) -> Points:
        """Half of the points uniform in the cube, half around the solids, where surfaces are."""
        solids = self.solids
        uniform = rng.uniform(-1, 1, (len(solids), count // 2, 3))
        near = _around_solids(solids, count - count // 2, 1.15, rng)
        near = near + 0.02 * rng.standard_normal(near.shape)
        positions = torch.from_numpy(np.concatenate([uniform, near.clip(-1, 1)], axis=1)).float()
        distance, colour = distance_and_colour(solids, positions)
        return Points(positions, distance < 0, torch.ones_like(distance, dtype=torch.bool), colour, distance < _SKIN)

    def rays(self, count: int, rng: np.random.Generator) -> SupervisedRays:
        """Rays of one random camera an object, three quarters of them aimed at its solids."""
        solids = self.solids
        at_object = _around_solids(solids, count - count // 4, 1.2, rng)
        anywhere = rng.uniform(-0.8, 0.8, (len(solids), count // 4, 3))
        cameras = [random_camera(rng) for _ in range(len(solids))]
        origin = np.stack([c.position for c in cameras])
        directions = np.concatenate([at_object, anywhere], axis=1) - origin[:, None]
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        near, far = (torch.from_numpy(t).float() for t in clip_to_cube(origin, directions))
        toward, start = torch.from_numpy(directions).float(), torch.from_numpy(origin).float()
        distance, colour = first_hits(solids, start[:, None].expand_as(toward), toward)
        hit = (distance < far)[..., None].float()
        return SupervisedRays(start, toward, near, far, torch.cat([colour * hit, hit], dim=-1))


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
        joined = [_points_of(files, count, rng) for files in self.files]
        return Points(*(torch.from_numpy(np.stack(values)) for values in zip(*joined, strict=True)))

    def rays(self, count: int, rng: np.random.Generator) -> SupervisedRays:
        """Pixels of one random view an object, half of them from where something is seen."""
        parts = []
        for files in self.files:
            view = int(rng.integers(len(files.cameras)))
            camera, picture = files.cameras[view], files.rgba(view)
            side = picture.shape[0]
            flat = picture.reshape(-1, 4)
            seen = np.flatnonzero(flat[:, 3])
            pixels = rng.integers(0, side * side, count)
            if seen.size:
                pixels[: count // 2] = rng.choice(seen, count // 2)
            rgba = flat[pixels].astype(np.float32) / 255
            rays = camera_rays(camera, side, side)
            chosen = (rays.directions[pixels], rays.near[pixels], rays.far[pixels])
            parts.append((rays.origin, *chosen, rgba * np.where(np.arange(4) < 3, rgba[:, 3:], 1).astype(np.float32)))
        return SupervisedRays(*(torch.from_numpy(np.stack(values)) for values in zip(*parts, strict=True)))


@dataclass(frozen=True)
class JoinedTruth:
    """Objects of several kinds in one batch, one kind after another."""

    parts: Sequence[Truth]

    def points(self, count: int, rng: np.random.Generator) -> Points:
        """As in `Truth`."""
        return _joined(Points, [part.points(count, rng) for part in self.parts])

    def rays(self, count: int, rng: np.random.Generator) -> SupervisedRays:
        """As in `Truth`."""
        return _joined(SupervisedRays, [part.rays(count, rng) for part in self.parts])


def point_loss(renderer: TriplaneRenderer, triplane: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Occupancy as binary cross-entropy on the density logit, colour as squared error on and in the object.

    Returns:
        The loss, and the intersection over union of the predicted occupancy, both scalars.
    """
    colour, density = renderer.logits(triplane, points.positions)
    logit, inside, known = density[..., 0].float(), points.inside, points.known
    entropy = F.binary_cross_entropy_with_logits(logit, inside.float(), reduction="none")
    occupancy = (entropy * known).sum() / known.sum().clamp(min=1)
    error = (torch.sigmoid(colour.float()) - points.colour).square().sum(-1)
    shade = (error * points.coloured).sum() / points.coloured.sum().clamp(min=1)
    predicted = (logit > 0) & known
    both, either = (predicted & inside).sum(1), (predicted | inside).sum(1)
    return occupancy + _COLOUR_WEIGHT * shade, (both / either.clamp(min=1)).mean()


def ray_loss(
    renderer: TriplaneRenderer, triplane: Tensor, rays: SupervisedRays, samples: int, jitter: torch.Generator
) -> Tensor:
    """Squared error of premultiplied colour and of alpha along rays, a scalar."""
    colour, alpha = renderer.march(triplane, rays.origin, rays.directions, rays.near, rays.far, samples, jitter)
    return _RAY_WEIGHT * F.mse_loss(torch.cat([colour, alpha], dim=-1).float(), rays.rgba)


def supervised(
    renderer: TriplaneRenderer,
    triplane: Tensor,
    truth: Truth,
    stage: StageConfig,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Points and rays, as many as the stage asks for.

    Returns:
        "loss", the sum of "points" and "rays" where they are, and "iou" of the points' occupancy; scalars.

    Raises:
        ConfigError: the stage has no rays, and nothing is known of the points.
    """
    losses = {}
    points = truth.points(stage.points, rng) if stage.points else None
    if points is not None and bool(points.known.any()):
        losses["points"], losses["iou"] = point_loss(renderer, triplane, _on(points, triplane.device))
    if stage.rays:
        rays = _on(truth.rays(stage.rays, rng), triplane.device)
        losses["rays"] = ray_loss(renderer, triplane, rays, stage.samples, generator)
    terms = [losses[name] for name in ("points", "rays") if name in losses]
    if not terms:
        raise ConfigError("Views without depth know no points: set rays above 0 in every stage of the configuration.")
    return {"loss": torch.stack(terms).sum(), **losses}


def _points_of(files: ViewFiles, count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """What `Points` holds, for one object."""
    uniform = rng.uniform(-1, 1, (count // 2, 3))
    positions, colour = rng.uniform(-1, 1, (count, 3)), np.zeros((count, 3), np.float32)
    inside, coloured = np.zeros(count, bool), np.zeros(count, bool)
    if not files.depths:
        return positions.astype(np.float32), inside, inside.copy(), colour, coloured
    depths = [files.depth(view) for view in range(len(files.depths))]
    near = count - count // 2
    share = -(-near // _SEEN_FROM)
    about = []
    for view in rng.permutation(len(depths))[:_SEEN_FROM]:
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
    positions[near:] = uniform
    positions = positions.clip(-1, 1)
    gaps = np.stack([_gap(camera, depth, positions) for camera, depth in zip(files.cameras, depths, strict=True)])
    inside, close = (gaps < 0).all(0), (gaps < _SKIN).all(0)
    if files.orthographic is not None:
        along_axes = _orthographic_gaps(files.six_views(), positions)
        inside &= (along_axes < 0).all((0, 1))
        inside |= _in_sheet(along_axes) & (gaps < _SHEET).all(0)
    coloured[:some] = close[:some]
    return positions.astype(np.float32), inside, np.ones(count, bool), colour, coloured


def _gap(camera: Camera, depth: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(N,) how far points (N, 3) are in front of what a camera sees in their pixels; infinity where it sees nothing."""
    side = depth.shape[0]
    columns, rows = ((camera.project(positions) + 1) / 2 * side).astype(int).clip(0, side - 1).T
    seen = depth[rows, columns]
    return np.where(seen > 0, seen, np.inf) - (positions - camera.position) @ camera.forward


def _orthographic_gaps(views: OrthographicViews, positions: np.ndarray) -> np.ndarray:
    """(3, 2, N) the same of the six orthographic views."""
    side, gaps = views.depth.shape[2], np.empty((3, 2, len(positions)))
    for plane, (column, row, sign) in enumerate(PLANE_AXES):
        texels = ((positions[:, (column, row)] * (1, sign) + 1) / 2 * side).astype(int).clip(0, side - 1)
        along = positions[:, 3 - column - row]
        for index, end in enumerate((1, -1)):
            seen = views.depth[plane, index][texels[:, 1], texels[:, 0]]
            gaps[plane, index] = np.where(seen > 0, end * (along - place_of(seen)), np.inf)
    return gaps


def _in_sheet(gaps: np.ndarray) -> np.ndarray:
    """(N,) where points are by a sheet, whose two sides are in one place: open meshes are made of such.

    Args:
        gaps: (3, 2, N) along the axes, from both ends of each.
    """
    thin = np.isfinite(gaps).all(1) & (gaps.sum(1) > -2 * _SHEET)
    return (thin & (gaps < _SHEET).all(1)).any(0)


def _on(values: Any, device: torch.device) -> Any:
    """A dataclass of tensors on a device."""
    return type(values)(*(getattr(values, each.name).to(device) for each in fields(values)))


def _joined(kind: type[Any], parts: Sequence[Any]) -> Any:
    """Dataclasses of tensors as one, along the objects."""
    return kind(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(kind)))


def _around_solids(solids: Solids, count: int, reach: float, rng: np.random.Generator) -> np.ndarray:
    """(B, count, 3) points uniform in the solids' own boxes, enlarged by `reach`; every solid gets as many."""
    to_local = solids.to_local.numpy()
    places = np.empty((len(solids), count, 3))
    for index, there in enumerate((solids.kind >= 0).sum(1).tolist()):
        which = rng.integers(0, there, count)
        local = rng.uniform(-reach, reach, (count, 3))
        inverse = np.linalg.inv(to_local[index, :there, :, :3])
        places[index] = np.einsum("nij,nj->ni", inverse[which], local - to_local[index, which, :, 3])
    return places

"""What training compares with: exact occupancy and colour at points, exact colours along rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.cameras import Camera
from runtime.rays import camera_rays, clip_to_cube

from ..renderer import TriplaneRenderer
from .config import ConfigError, StageConfig
from .solids import Solids, distance_and_colour, first_hits

# Points that near outside the surface still have its colour: a density that falls off softly shows them.
_SKIN = 0.04
_COLOUR_WEIGHT = 2.0
_RAY_WEIGHT = 5.0


@dataclass(frozen=True)
class Points:
    """Points of B objects: positions (B, N, 3), inside (B, N) bool, colour (B, N, 3), coloured (B, N) bool."""

    positions: Tensor
    inside: Tensor
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
    """What is known of B objects, on one device."""

    def points(self, count: int, generator: torch.Generator) -> Points | None:
        """`count` points of each object; None where the truth is pictures only."""
        ...

    def rays(self, count: int, rng: np.random.Generator, generator: torch.Generator) -> SupervisedRays:
        """`count` rays of one camera of each object."""
        ...


@dataclass(frozen=True)
class SolidTruth:
    """Exact truth of procedural objects."""

    solids: Solids

    def points(self, count: int, generator: torch.Generator) -> Points:
        """Half of the points uniform in the cube, half around the solids, where surfaces are."""
        solids, device = self.solids, generator.device
        uniform = 2 * torch.rand(len(solids), count // 2, 3, generator=generator, device=device) - 1
        near = _around_solids(solids, count - count // 2, 1.15, generator)
        near = near + 0.02 * torch.randn(near.shape, generator=generator, device=device)
        positions = torch.cat([uniform, near.clamp(-1, 1)], dim=1)
        distance, colour = distance_and_colour(solids, positions)
        return Points(positions, distance < 0, colour, distance < _SKIN)

    def rays(self, count: int, rng: np.random.Generator, generator: torch.Generator) -> SupervisedRays:
        """Rays of one random camera an object, three quarters of them aimed at its solids."""
        solids, device = self.solids, generator.device
        at_object = _around_solids(solids, count - count // 4, 1.2, generator)
        anywhere = 1.6 * torch.rand(len(solids), count // 4, 3, generator=generator, device=device) - 0.8
        targets = torch.cat([at_object, anywhere], dim=1)
        cameras = [random_camera(rng) for _ in range(len(solids))]
        origin = torch.tensor(np.stack([c.position for c in cameras]), dtype=torch.float32).to(device)
        directions = F.normalize(targets - origin[:, None], dim=-1)
        near, far = _limits(cameras, directions)
        distance, colour = first_hits(solids, origin[:, None].expand_as(directions), directions)
        hit = (distance < far)[..., None].float()
        return SupervisedRays(origin, directions, near, far, torch.cat([colour * hit, hit], dim=-1))


@dataclass(frozen=True)
class ViewTruth:
    """Truth of B objects as posed pictures: rgba (V, S, S, 4) uint8 and V cameras for each."""

    rgba: Sequence[np.ndarray]
    cameras: Sequence[Sequence[Camera]]

    def points(self, count: int, generator: torch.Generator) -> None:
        """Pictures know no points."""

    def rays(self, count: int, rng: np.random.Generator, generator: torch.Generator) -> SupervisedRays:
        """Pixels of one random view an object, half of them from where something is seen."""
        directions, rgba, chosen = [], [], []
        for pictures, cameras in zip(self.rgba, self.cameras, strict=True):
            view = int(rng.integers(len(cameras)))
            side = pictures.shape[1]
            picture = pictures[view].reshape(-1, 4).astype(np.float32) / 255
            seen = np.flatnonzero(picture[:, 3])
            pixels = rng.integers(0, side * side, count)
            if seen.size:
                pixels[: count // 2] = rng.choice(seen, count // 2)
            directions.append(camera_rays(cameras[view], side, side).directions[pixels])
            rgba.append(picture[pixels] * np.where(np.arange(4) < 3, picture[pixels, 3:], 1))
            chosen.append(cameras[view])
        device = generator.device
        toward = torch.from_numpy(np.stack(directions)).to(device)
        origin = torch.tensor(np.stack([c.position for c in chosen]), dtype=torch.float32).to(device)
        colours = torch.from_numpy(np.stack(rgba)).float().to(device)
        return SupervisedRays(origin, toward, *_limits(chosen, toward), colours)


def random_camera(rng: np.random.Generator) -> Camera:
    """Anywhere on the upper part of the sphere, at about the canonical distance."""
    elevation = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-10)), np.sin(np.radians(65)))))
    return Camera.orbit(rng.uniform(0, 360), elevation, rng.uniform(2.7, 3.3))


def point_loss(renderer: TriplaneRenderer, triplane: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Occupancy as binary cross-entropy on the density logit, colour as squared error on and in the object.

    Returns:
        The loss, and the intersection over union of the predicted occupancy, both scalars.
    """
    colour, density = renderer.logits(triplane, points.positions)
    logit, inside = density[..., 0].float(), points.inside
    occupancy = F.binary_cross_entropy_with_logits(logit, inside.float())
    error = (torch.sigmoid(colour.float()) - points.colour).square().sum(-1)
    shade = (error * points.coloured).sum() / points.coloured.sum().clamp(min=1)
    predicted = logit > 0
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
    """Points where the truth knows them and rays where the stage asks for them.

    Returns:
        "loss", the sum of "points" and "rays" where they are, and "iou" of the points' occupancy; scalars.
    """
    losses = {}
    points = truth.points(stage.points, generator) if stage.points else None
    if points is not None:
        losses["points"], losses["iou"] = point_loss(renderer, triplane, points)
    if stage.rays:
        rays = truth.rays(stage.rays, rng, generator)
        losses["rays"] = ray_loss(renderer, triplane, rays, stage.samples, generator)
    terms = [losses[name] for name in ("points", "rays") if name in losses]
    if not terms:
        raise ConfigError("Posed views know no points: set rays above 0 in every stage of the configuration.")
    return {"loss": torch.stack(terms).sum(), **losses}


def variation(planes: Tensor) -> Tensor:
    """Mean squared difference of neighbouring texels (total variation, squared) of (..., H, W), a scalar."""
    return (planes[..., 1:, :] - planes[..., :-1, :]).square().mean() + (
        planes[..., :, 1:] - planes[..., :, :-1]
    ).square().mean()


def _limits(cameras: Sequence[Camera], directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays (B, R, 3) from B cameras enter and leave the cube, (B, R) each."""
    origins = np.stack([camera.position for camera in cameras])
    near, far = clip_to_cube(origins, directions.double().cpu().numpy())
    return torch.from_numpy(near).to(directions), torch.from_numpy(far).to(directions)


def _around_solids(solids: Solids, count: int, reach: float, generator: torch.Generator) -> Tensor:
    """(B, count, 3) points uniform in the solids' own boxes, enlarged by `reach`; every solid gets as many."""
    device = generator.device
    which = torch.multinomial((solids.kind >= 0).float(), count, replacement=True, generator=generator)
    frames = solids.to_local.gather(1, which[..., None, None].expand(-1, -1, 3, 4))
    local = (2 * torch.rand(*which.shape, 3, generator=generator, device=device) - 1) * reach
    return torch.linalg.solve(frames[..., :3], (local - frames[..., 3])[..., None])[..., 0]

"""What training compares with, and how: occupancy and colour at points, colour and alpha along rays.

Points and rays are drawn more often where the object is. Their weights undo that: without them a place that may or may
not belong to the object counts as inside more often than it is, and the object comes out too dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..renderer import TriplaneRenderer
from .config import ConfigError, StageConfig

# Points that near outside the surface still have its colour: a density that falls off softly shows them.
SKIN = 0.04
_OCCUPANCY_WEIGHT, _COLOUR_WEIGHT, _RAY_WEIGHT, _ALPHA_WEIGHT = 2.0, 2.0, 10.0, 0.5
# Optical depths are at least this where the logarithm of alpha is taken.
_LEAST_DEPTH = 1e-4


@dataclass(frozen=True)
class Points:
    """Points of B objects.

    Attributes:
        positions: (B, N, 3) world.
        inside: (B, N) bool.
        weight: (B, N) how much that counts: the uniform density over the one that the point was drawn with, so that
            sums are those over the cube; 0 where it is not known.
        colour: (B, N, 3) in [0, 1].
        coloured: (B, N) bool, where that is known.
    """

    positions: Tensor
    inside: Tensor
    weight: Tensor
    colour: Tensor
    coloured: Tensor


@dataclass(frozen=True)
class SupervisedRays:
    """Rays of B objects.

    Attributes:
        origin: (B, 3) world.
        directions: (B, R, 3) of unit length.
        near: (B, R) where they enter the cube; far: (B, R) where they leave it.
        rgba: (B, R, 4), premultiplied.
        weight: (B, R) as that of `Points`, so that sums are those over whole images.
    """

    origin: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    rgba: Tensor
    weight: Tensor


class Truth(Protocol):
    """What is known of B objects."""

    def points(self, count: int, rng: np.random.Generator) -> Points:
        """`count` points of each object, on the CPU."""
        ...

    def rays(self, count: int, rng: np.random.Generator) -> SupervisedRays:
        """`count` rays of one camera of each object, on the CPU."""
        ...


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


def importance(share: float, density: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weights by which a mixture of draws counts as uniform ones (balance heuristic, Veach and Guibas 1995).

    Args:
        share: of the draws that were not uniform.
        density: (...,) of those at each draw, relative to the uniform one.

    Returns:
        (...,) above 0 and at most 1 / (1 - share); 1 on average.
    """
    return 1 / (share * density + (1 - share))


def point_loss(renderer: TriplaneRenderer, triplane: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Occupancy as binary cross-entropy on the density logit, colour as squared error on and in the object.

    Returns:
        The loss, and the intersection over union of the predicted occupancy in the cube, both scalars.
    """
    colour, density = renderer.logits(triplane, points.positions)
    logit, inside = density[..., 0].float(), points.inside
    entropy = F.binary_cross_entropy_with_logits(logit, inside.float(), reduction="none")
    occupancy = (entropy * points.weight).sum() / points.weight.sum().clamp(min=1)
    error = (torch.sigmoid(colour.float()) - points.colour).square().sum(-1)
    shade = (error * points.coloured).sum() / points.coloured.sum().clamp(min=1)
    both, either = ((part * points.weight).sum(1) for part in ((logit > 0) & inside, (logit > 0) | inside))
    return _OCCUPANCY_WEIGHT * occupancy + _COLOUR_WEIGHT * shade, (both / either.clamp(min=1e-6)).mean()


def ray_loss(
    renderer: TriplaneRenderer, triplane: Tensor, rays: SupervisedRays, samples: int, jitter: torch.Generator
) -> Tensor:
    """Squared error of premultiplied colour and of alpha along rays, and the cross-entropy of alpha; a scalar.

    Squared error alone has hardly a gradient where alpha is near 1 and should not be. There the cross-entropy is the
    optical depth, since 1 - alpha is its exponential.
    """
    colour, alpha, depth = renderer.march(triplane, rays.origin, rays.directions, rays.near, rays.far, samples, jitter)
    drawn = torch.cat([colour, alpha], dim=-1).float()
    squared = (drawn - rays.rgba).square().mean(-1)
    passed, covered = depth[..., 0].float(), rays.rgba[..., 3]
    entropy = (1 - covered) * passed - covered * torch.log(-torch.expm1(-passed.clamp(min=_LEAST_DEPTH)))
    return (rays.weight * (_RAY_WEIGHT * squared + _ALPHA_WEIGHT * entropy)).mean()


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
    if points is not None and bool(points.weight.any()):
        losses["points"], losses["iou"] = point_loss(renderer, triplane, _on(points, triplane.device))
    if stage.rays:
        rays = _on(truth.rays(stage.rays, rng), triplane.device)
        losses["rays"] = ray_loss(renderer, triplane, rays, stage.samples, generator)
    terms = [losses[name] for name in ("points", "rays") if name in losses]
    if not terms:
        raise ConfigError("Views without depth know no points: set rays above 0 in every stage of the configuration.")
    return {"loss": torch.stack(terms).sum(), **losses}


def _on(values: Any, device: torch.device) -> Any:
    """A dataclass of tensors on a device."""
    return type(values)(*(getattr(values, each.name).to(device) for each in fields(values)))


def _joined(kind: type[Any], parts: Sequence[Any]) -> Any:
    """Dataclasses of tensors as one, along the objects."""
    return kind(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(kind)))

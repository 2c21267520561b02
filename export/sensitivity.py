"""How steep the decoder is: what the runtime's occupancy grid needs to know of it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import TriplaneRenderer, WaveletTriplaneDiffusion
from runtime.rendering.departures import unforeseen_changes
from runtime.rendering.occupancy import NOTHING_LOGIT, OUTSIDE_LOGIT

_POINTS = 20_000
# The share of what is foreseen that has to be right, and how much more is taken for objects that were not measured.
_QUANTILE, _MARGIN = 0.999, 1.25


def density_sensitivity(model: WaveletTriplaneDiffusion, images: Tensor) -> list[float]:
    """Estimates how far the density's logit departs from its interpolation, for what each plane's features depart.

    Gradients alone say how far it may depart if all texels point along the steepest direction at once. How far it
    does is measured on objects: 999 in 1,000 points depart by no more than what these numbers give, less a fifth.

    Args:
        model: in evaluation mode.
        images: (B, 3, S, S) in [-1, 1], of the objects.

    Returns:
        For each plane what `OccupancyGrid.of` takes, at most `decoder_sensitivity`.
    """
    with torch.no_grad():
        ll, condition = model.predict_ll(images)
        planes = model.reconstruct_planes(ll, model.sample_details(condition, 1))
    steepest = decoder_sensitivity(model.renderer, planes)
    found = [_departures(model.renderer, item[None], steepest) for item in planes]
    departures = np.concatenate(found)
    share = _MARGIN * float(np.quantile(departures, _QUANTILE)) if departures.size else 1.0
    return [min(share, 1.0) * value for value in steepest]


def decoder_sensitivity(renderer: TriplaneRenderer, planes: Tensor) -> list[float]:
    """Estimates how much the density's logit changes with each plane's features.

    An estimate from below: the largest gradient at random points of these objects. No other object is bound by it.

    Args:
        renderer: the decoder.
        planes: (B, 3, C, H, W) of objects like those that will be drawn.

    Returns:
        For each plane the largest Euclidean norm of the gradient.
    """
    generator = torch.Generator().manual_seed(0)
    coords = 2 * torch.rand(len(planes), _POINTS, 3, generator=generator) - 1
    features = renderer.query_triplane(planes, coords.to(planes)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(renderer.heads(features)[1].sum(), features)
    largest: list[float] = gradient.unflatten(-1, (3, -1)).norm(dim=-1).amax((0, 1)).tolist()
    return largest


@torch.no_grad()
def _departures(renderer: TriplaneRenderer, planes: Tensor, sensitivity: list[float]) -> np.ndarray:
    """(K,) departures of the logit from interpolation between the middles of cells, over those that are allowed for.

    Args:
        renderer: the decoder.
        planes: (1, 3, C, H, H) of one object.
        sensitivity: of `decoder_sensitivity`.
    """
    side = planes.shape[-1] // 2
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    middles = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3)
    known = torch.cat([renderer.logits(planes, part)[1] for part in middles.split(1 << 15, 1)], 1).clamp(OUTSIDE_LOGIT)
    points = 2 * torch.rand(1, _POINTS, 3, generator=torch.Generator().manual_seed(1)) - 1
    true = renderer.logits(planes, points)[1][0, :, 0].clamp(OUTSIDE_LOGIT)
    # `grid_sample` takes the last axis first.
    grid = points.flip(-1)[:, :, None, None]
    volume = known.reshape(1, 1, side, side, side)
    between = F.grid_sample(volume, grid, align_corners=False, padding_mode="border").reshape(-1)
    _, allowed = unforeseen_changes(planes[0].numpy(), sensitivity)
    cells = ((points[0] + 1) / 2 * side).long().clamp(0, side - 1).numpy().T
    share = ((true - between).abs().numpy() / allowed.reshape((side,) * 3)[tuple(cells)].clip(1e-6)).astype(np.float64)
    return share[(torch.maximum(true, between) > NOTHING_LOGIT).numpy()]

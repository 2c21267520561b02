"""How steep the decoder is: what the runtime's occupancy grid needs to know of it."""

from __future__ import annotations

import torch
from torch import Tensor

from model import TriplaneRenderer, WaveletTriplaneDiffusion

_POINTS = 20_000


def density_sensitivity(model: WaveletTriplaneDiffusion, images: Tensor) -> list[float]:
    """Estimates `decoder_sensitivity` over the objects in images (B, 3, S, S) in [-1, 1]."""
    with torch.no_grad():
        ll, _ = model.predict_ll(images)
        details = torch.stack([model.wavelet.bilinear_details(item) for item in ll])
        planes = model.reconstruct_planes(ll, details)
    return decoder_sensitivity(model.renderer, planes)


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

"""Fitting planes to what is known of objects: the targets of the diffusion, and the ceiling of what planes can show."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..renderer import TriplaneRenderer
from .config import StageConfig
from .supervision import Truth, supervised, variation


def fit_triplanes(
    start: Tensor,
    truth: Truth,
    renderer: TriplaneRenderer,
    stage: StageConfig,
    seed: int,
    *,
    smoothness: float,
    train_renderer: bool = False,
) -> Tensor:
    """Moves planes to where they explain their objects, by Adam with a rate that falls to 0.

    Args:
        start: (B, 3, C, H, W) planes to start from.
        truth: of the B objects.
        renderer: the decoder that reads the planes.
        stage: steps, peak learning rate, points, rays and samples.
        seed: of points and rays.
        smoothness: weight of the squared difference of neighbouring texels.
        train_renderer: optimises the decoder too.

    Returns:
        (B, 3, C, H, W), detached.
    """
    planes = start.detach().clone().requires_grad_()
    rng, generator = np.random.default_rng(seed), torch.Generator(planes.device).manual_seed(seed)
    decoder = list(renderer.parameters())
    optimizer = torch.optim.Adam([planes, *(decoder if train_renderer else [])], betas=(0.9, 0.95))
    for parameter in decoder:
        parameter.requires_grad_(train_renderer)
    for step in range(stage.steps):
        optimizer.param_groups[0]["lr"] = stage.lr * (1 - step / stage.steps)
        # The mean over the objects must not weaken the single object's gradient.
        loss = supervised(renderer, planes, truth, stage, rng, generator)["loss"] + smoothness * variation(planes)
        optimizer.zero_grad()
        (len(planes) * loss).backward()
        optimizer.step()
    for parameter in decoder:
        parameter.requires_grad_(True)
    return planes.detach()

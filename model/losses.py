"""Losses by their names in the specification, for people who write their own training loop.

`model/training` has the losses that the shipped weights were trained with: by points and rays of the object itself, and
by a teacher's planes. These need no more than target planes and target images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .pipeline import WaveletTriplaneDiffusion
from .wavelet import WaveletTransform


class Targets(NamedTuple):
    """What a batch shall come out as.

    Attributes:
        triplane: (B, 3, C, 2R, 2R), such as a teacher's.
        image: (B, 3, H, W) in [0, 1], from the canonical camera; `forward` draws 64x64.
    """

    triplane: Tensor
    image: Tensor


def compute_loss(triplane_LL: Tensor, targets: Targets) -> Tensor:
    """Mean squared error of the LL band, the coarse generator's loss.

    Args:
        triplane_LL: (B, 3, C, R, R).
        targets: whose triplane's LL band is wanted.
    """
    return F.mse_loss(triplane_LL, bands(targets.triplane)[0])


def diffusion_training_step(
    model: WaveletTriplaneDiffusion, triplane_LL: Tensor, targets: Targets, generator: torch.Generator | None = None
) -> Tensor:
    """Mean squared error of v = alpha noise - sigma x0 at a random timestep of each plane (Salimans and Ho 2022).

    Args:
        model: whose `detail_diffusion` learns.
        triplane_LL: (B, 3, C, R, R), the condition.
        targets: whose triplane's details are wanted.
        generator: of timesteps and noise; None for PyTorch's own.
    """
    network, coarse = model.detail_diffusion, model.coarse_gen
    details = (bands(targets.triplane)[1] - model.detail_mean[:, :, None, None]) / model.detail_std[:, :, None, None]
    condition = (triplane_LL - coarse.mean[:, :, None, None]) / coarse.std[:, :, None, None]
    x0, told = (rearrange(t, "b p c h w -> (b p) c h w") for t in (details, condition))
    timestep = torch.randint(len(network.alpha), (len(x0),), generator=generator).to(x0.device)
    noise = torch.randn(x0.shape, generator=generator).to(x0)
    alpha, sigma = (values[timestep][:, None, None, None] for values in (network.alpha, network.sigma))
    predicted = network.velocity(alpha * x0 + sigma * noise, timestep, network.encode_condition(told))
    return F.mse_loss(predicted, alpha * noise - sigma * x0)


def diffusion_loss(outputs: dict[str, Tensor]) -> Tensor:
    """Mean magnitude of the sampled details, relative to that of the LL band.

    It keeps details small where no target asks for them (wavelet coefficients of images are sparse); what teaches the
    denoiser its distribution is `diffusion_training_step`.

    Args:
        outputs: of the model, with `return_intermediate=True`.
    """
    return outputs["triplane_details"].abs().mean() / outputs["triplane_LL"].detach().abs().mean().clamp_min(1e-6)


def reconstruction_loss(outputs: dict[str, Tensor], targets: Targets) -> Tensor:
    """Mean absolute error of the joined triplane.

    Args:
        outputs: of the model, with `return_intermediate=True`.
        targets: whose triplane is wanted.
    """
    return F.l1_loss(outputs["triplane_highres"], targets.triplane)


def rendering_loss(rendered_image: Tensor, targets: Targets) -> Tensor:
    """Mean squared error of the drawn image; a target of another size is resampled by area.

    Args:
        rendered_image: (B, 3, H, W) in [0, 1].
        targets: whose image is wanted.
    """
    return F.mse_loss(rendered_image, F.interpolate(targets.image, rendered_image.shape[-2:], mode="area"))


def bands(triplane: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a triplane (B, 3, C, 2R, 2R) into LL (B, 3, C, R, R) and details (B, 3, 3C, R, R)."""
    ll, *details = WaveletTransform().to(triplane.device).dwt2d(rearrange(triplane, "b p c h w -> (b p) c h w"))
    joined = rearrange(torch.cat(details, dim=1), "(b p) c h w -> b p c h w", p=3)
    return rearrange(ll, "(b p) c h w -> b p c h w", p=3), joined

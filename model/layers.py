"""Building blocks shared by the coarse generator and the denoiser."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NORM_GROUPS = 8
HEAD_CHANNELS = 32


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution, zero padding 1; stride 2 halves an even size."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


def norm(channels: int) -> nn.GroupNorm:
    """GroupNorm over `NORM_GROUPS` groups."""
    return nn.GroupNorm(NORM_GROUPS, channels)


class ResBlock(nn.Module):
    """Pre-activation residual block; with `time_dim` a timestep embedding scales and shifts its second norm.

    Args:
        in_channels: a multiple of 8.
        out_channels: a multiple of 8; where it differs the skip is a 1x1 convolution.
        time_dim: width of the timestep embedding, or None for a block without one.
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int | None = None) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(in_channels), conv3x3(in_channels, out_channels)
        self.norm2, self.conv2 = norm(out_channels), conv3x3(out_channels, out_channels)
        self.modulation = None if time_dim is None else nn.Linear(time_dim, 2 * out_channels)
        self.skip: Any = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x: (B, in, H, W); time: (B or 1, time_dim). Returns (B, out, H, W)."""
        h = self.norm2(self.conv1(F.gelu(self.norm1(x))))
        if self.modulation is not None:
            scale, shift = self.modulation(time)[..., None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.gelu(h))


class UpBlock(ResBlock):
    """Doubles planes, joins them with finer ones, and runs a residual block over both.

    Args:
        in_channels: of the planes to double.
        finer_channels: of those that they are joined with, 0 for none.
        out_channels: other than the sum of both, a multiple of 8.
        time_dim: as in `ResBlock`.
    """

    def __init__(self, in_channels: int, finer_channels: int, out_channels: int, time_dim: int | None = None) -> None:
        super().__init__(in_channels + finer_channels, out_channels, time_dim)
        self.in_channels = in_channels

    def forward(self, x: Tensor, time: Tensor | None = None, finer: Tensor | None = None) -> Tensor:
        """x: (B, in, H, W); time: (B or 1, time_dim); finer: (B, finer, 2H, 2W). Returns (B, out, 2H, 2W)."""
        doubled = upsample(x)
        return super().forward(doubled if finer is None else torch.cat([doubled, finer], dim=1), time)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP over a sequence of tokens.

    Args:
        dim: token width, a multiple of 32.
        expansion: hidden width of the MLP over `dim`.
    """

    def __init__(self, dim: int, expansion: int = 3) -> None:
        super().__init__()
        self.heads = dim // HEAD_CHANNELS
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        # Without biases: that of a key has no effect, since softmax ignores a shift of all logits.
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, N, dim). Returns (B, N, dim)."""
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b n (three h c) -> three b h n c", three=3, h=self.heads)
        x = x + self.project(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n c -> b n (h c)"))
        return x + self.mlp(self.norm2(x))


def upsample(x: Tensor) -> Tensor:
    """Doubles (B, C, H, W) to (B, C, 2H, 2W), nearest neighbour."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def sinusoidal_embedding(timestep: Tensor, dim: int) -> Tensor:
    """Sines and cosines at geometrically spaced frequencies (Vaswani et al. 2017; periods from 2 pi to 2 pi 10000).

    Args:
        timestep: (B,) any real dtype.
        dim: even width of the result.

    Returns:
        (B, dim) float32.
    """
    frequencies = torch.exp(torch.arange(dim // 2, device=timestep.device) * (-math.log(10000.0) / (dim // 2)))
    angles = timestep.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)

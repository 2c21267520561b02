"""Stage 1: one image to the low-resolution triplane (the LL band)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from runtime.geometry.triplane import PLANE_AXES

from .config import network_width
from .layers import ResBlock, TransformerBlock, UpBlock, conv3x3, norm
from .lift import Lift

_IMAGE_BLOCKS, _PLANE_BLOCKS = 2, 3
_TOKEN_STRIDE = 4


class AxisPositions(nn.Module):
    """Learned positions of plane tokens, one table per world axis, so that tokens sharing a coordinate share a code."""

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.axes = nn.Parameter(0.02 * torch.randn(3, side, dim))
        self.planes = nn.Parameter(0.02 * torch.randn(3, 1, 1, dim))

    def forward(self) -> Tensor:
        """Returns (3 * side * side, dim)."""
        codes = []
        for column, row, sign in PLANE_AXES:
            along_rows = self.axes[row] if sign > 0 else self.axes[row].flip(0)
            codes.append(self.axes[column][None, :] + along_rows[:, None])
        return (torch.stack(codes) + self.planes).flatten(0, 2)


class CoarseTriplaneGen(nn.Module):
    """Image to LL band: local convolutions, a global look at the image, a lift into space, attention over planes.

    Two strided convolutions and two residual blocks read the image. Two further ones and a transformer sum it up
    in (resolution / 4)^2 tokens. `Lift` carries both into the three planes, whose tokens attend to one another (that
    is where depth is inferred), and a convolutional decoder brings them to full resolution.

    Args:
        input_channels: channels of the image.
        triplane_channels: C.
        resolution: side of the LL planes, a multiple of 16; the image has four times this side.

    Attributes:
        mean: (3, C) buffer, mean of the training set's LL bands; the network predicts standardised bands, `forward`
            returns them in the triplane's own units.
        std: (3, C) buffer, their standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_channels: int = 3, triplane_channels: int = 32, resolution: int = 64) -> None:
        super().__init__()
        self.input_channels, self.resolution = input_channels, resolution
        side = resolution // _TOKEN_STRIDE
        width = network_width(triplane_channels)
        dim = 4 * width
        self.down = nn.Sequential(
            conv3x3(input_channels, width, 2), norm(width), nn.GELU(), conv3x3(width, width, 2), norm(width), nn.GELU()
        )
        self.local = nn.Sequential(ResBlock(width, width), ResBlock(width, width))
        self.patches = nn.Sequential(
            norm(width), nn.GELU(), conv3x3(width, 2 * width, 2), norm(2 * width), nn.GELU(), conv3x3(2 * width, dim, 2)
        )
        self.image_positions = nn.Parameter(0.02 * torch.randn(side * side, dim))
        self.image_blocks = nn.Sequential(*(TransformerBlock(dim) for _ in range(_IMAGE_BLOCKS)))
        self.lift_tokens = Lift(dim, dim, side, depths=8, channels_per_depth=dim // 4)
        self.plane_positions = AxisPositions(side, dim)
        self.plane_blocks = nn.Sequential(*(TransformerBlock(dim) for _ in range(_PLANE_BLOCKS)))
        self.lift_local = Lift(width, width, resolution, depths=8, channels_per_depth=8)
        self.up1, self.up2 = UpBlock(dim, 0, 2 * width), UpBlock(2 * width, width, width)
        self.out = nn.Sequential(norm(width), nn.GELU(), conv3x3(width, triplane_channels))
        self.register_buffer("mean", torch.zeros(3, triplane_channels))
        self.register_buffer("std", torch.ones(3, triplane_channels))

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, input_channels, 4R, 4R) in [-1, 1]. Returns (B, 3, C, R, R)."""
        return self.in_units(self.read_out(self.features(images)))

    def in_units(self, standard: Tensor) -> Tensor:
        """A standardised LL band (B, 3, C, R, R) in the triplane's own units."""
        return standard * self.std[:, :, None, None] + self.mean[:, :, None, None]

    def read_out(self, features: Tensor) -> Tensor:
        """The standardised LL band (B, 3, C, R, R) in features (B * 3, width, R, R)."""
        return rearrange(self.out(features), "(b p) c h w -> b p c h w", p=3)

    def features(self, images: Tensor) -> Tensor:
        """What the generator knows of each plane, more than the LL band holds: (B * 3, width, R, R)."""
        size = 4 * self.resolution
        if images.ndim != 4 or tuple(images.shape[1:]) != (self.input_channels, size, size):
            raise ValueError(
                f"images must be (B, {self.input_channels}, {size}, {size}), not {tuple(images.shape)}: resize "
                "them, or build the generator with another resolution."
            )
        local = self.local(self.down(images))
        patches = self.patches(local)
        side = self.resolution // _TOKEN_STRIDE
        tokens = rearrange(patches, "b c h w -> b (h w) c") + self.image_positions
        image = rearrange(self.image_blocks(tokens), "b (h w) c -> b c h w", h=side)
        lifted = rearrange(self.lift_tokens(image), "(b p) c h w -> b (p h w) c", p=3)
        planes = self.plane_blocks(lifted + self.plane_positions())
        h = rearrange(planes, "b (p h w) c -> (b p) c h w", p=3, h=side)
        return self.up2(self.up1(h), finer=self.lift_local(F.gelu(local)))

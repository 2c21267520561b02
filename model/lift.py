"""Where an image feature may lie in space: the geometry that a purely local generator lacks.

A texel of a plane stands for a line through the volume, along the axis that the plane does not have. `Lift` puts
points on that line, projects them into the canonical camera and hands the texel what the image shows there. A texel
of XZ so sees the pixels of one image column, one of YZ those of a row, in true perspective.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from runtime.geometry.cameras import Camera
from runtime.geometry.triplane import PLANE_AXES


def plane_points(resolution: int, depths: int) -> np.ndarray:
    """Points on the line behind each texel centre.

    Returns:
        (3, resolution, resolution, depths, 3) float64 world positions in the cube.
    """
    centre = (np.arange(resolution) + 0.5) * 2 / resolution - 1
    # The object lies in the unit sphere, so the ends of the line are seldom worth a sample.
    along = ((np.arange(depths) + 0.5) * 2 / depths - 1) * 0.9
    points = np.empty((3, resolution, resolution, depths, 3))
    for plane, (column, row, sign) in enumerate(PLANE_AXES):
        points[plane, ..., column] = centre[None, :, None]
        points[plane, ..., row] = sign * centre[:, None, None]
        points[plane, ..., 3 - column - row] = along
    return points


class Lift(nn.Module):
    """Image features to plane features.

    Args:
        in_channels: channels of the image features.
        out_channels: channels of each plane.
        resolution: side of the planes.
        depths: samples along the missing axis.
        channels_per_depth: what each sample is reduced to before they are joined.
    """

    grid: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, resolution: int, depths: int = 8, channels_per_depth: int = 8
    ) -> None:
        super().__init__()
        self.resolution, self.depths = resolution, depths
        self.reduce = nn.Conv2d(in_channels, channels_per_depth, 1)
        self.join = nn.Conv2d(channels_per_depth * depths, out_channels, 1)
        grid = Camera.orbit().project(plane_points(resolution, depths))
        # Depth before height and width, as the channels of a plane have it.
        grid = rearrange(grid, "p h w d xy -> 1 (p d h) w xy")
        self.register_buffer("grid", torch.tensor(grid, dtype=torch.float32), False)

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, in, h, w). Returns (B * 3, out, resolution, resolution), the planes of an item together."""
        grid = self.grid.expand(features.shape[0], -1, -1, -1)
        seen = F.grid_sample(self.reduce(features), grid, align_corners=False, padding_mode="border")
        lines = rearrange(seen, "b c (p d h) w -> (b p) (c d) h w", p=3, d=self.depths)
        return self.join(lines)

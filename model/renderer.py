"""Stage 4: the MLP that reads a triplane at points, and plain volume rendering: the reference for the runtime's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from runtime.geometry.cameras import Camera
from runtime.geometry.rays import camera_rays
from runtime.geometry.triplane import PLANE_AXES

# Density per scene unit for a logit of about 1: a solid whose logit is a few units is opaque within a tenth.
DENSITY_SCALE = 20.0
# On a CPU larger parts leave its caches, and their arrays are given back to the system each time: three times as slow.
_POINTS_AT_ONCE = {"cpu": 1 << 13, "cuda": 1 << 18}


class TriplaneRenderer(nn.Module):
    """Triplane to colour and density at points, and to images.

    Planes are 0 = XY (column x, row -y), 1 = XZ (column x, row z), 2 = YZ (column z, row -y), read bilinearly with
    `align_corners=False` and border padding.

    Args:
        triplane_channels: C.
        hidden_dim: width of the MLP's two hidden layers.
        density_bias: the density logit to start from.
    """

    def __init__(self, triplane_channels: int = 32, hidden_dim: int = 128, density_bias: float = -2.0) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(3 * triplane_channels, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()
        )
        self.colour, self.density = nn.Linear(hidden_dim, 3), nn.Linear(hidden_dim, 1)
        nn.init.constant_(self.density.bias, density_bias)

    def query_triplane(self, triplane: Tensor, coords: Tensor) -> Tensor:
        """Interpolated features.

        Args:
            triplane: (B, 3, C, H, W).
            coords: (B, N, 3) world positions; outside [-1, 1] the border continues.

        Returns:
            (B, N, 3C), the planes' features one after another.
        """
        features = []
        for plane, (column, row, sign) in enumerate(PLANE_AXES):
            grid = torch.stack([coords[..., column], sign * coords[..., row]], dim=-1)[:, :, None]
            sampled = F.grid_sample(triplane[:, plane], grid, align_corners=False, padding_mode="border")
            features.append(sampled[..., 0])
        return torch.cat(features, dim=1).transpose(1, 2)

    def logits(self, triplane: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Colour and density before their last non-linearity: (B, N, 3) and (B, N, 1)."""
        return self.heads(self.query_triplane(triplane, coords))

    def forward(self, triplane: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Colour and density at points.

        Args:
            triplane: (B, 3, C, H, W).
            coords: (B, N, 3) in [-1, 1].

        Returns:
            rgb: (B, N, 3) in [0, 1]; density: (B, N, 1) per scene unit, above 0.
        """
        return self.decode(self.query_triplane(triplane, coords))

    def decode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` from the planes' features (..., 3C) on."""
        return self.activated(*self.heads(features))

    def activated(self, colour: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        """What the heads give, of any shape, as colour in [0, 1] and density per scene unit."""
        return torch.sigmoid(colour), DENSITY_SCALE * F.softplus(density)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (..., 3C) to colour (..., 3) and density (..., 1) before their last non-linearity."""
        h = self.mlp(features)
        return self.colour(h), self.density(h)

    def render_volume(
        self,
        triplane: Tensor,
        num_samples: int = 64,
        image_size: int = 128,
        camera: Camera | Sequence[Camera] | None = None,
        *,
        jitter: torch.Generator | None = None,
    ) -> Tensor:
        """Draws each item over white.

        Args:
            triplane: (B, 3, C, H, W).
            num_samples: samples per ray, spread evenly over its stay in the cube.
            image_size: side of the square image in pixels.
            camera: one for all items, or one each; None for the canonical one.
            jitter: draws the samples at random within their intervals, for training; None takes the midpoints.

        Returns:
            (B, 3, image_size, image_size) in [0, 1].
        """
        if num_samples < 1 or image_size < 1:
            raise ValueError(f"num_samples and image_size must be at least 1, not {num_samples} and {image_size}.")
        batch = triplane.shape[0]
        cameras = [camera or Camera.orbit()] * batch if camera is None or isinstance(camera, Camera) else list(camera)
        if len(cameras) != batch:
            raise ValueError(f"There are {len(cameras)} cameras for {batch} items: give one, or one for each item.")
        bundles = [camera_rays(each, image_size, image_size) for each in cameras]

        def stacked(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(rays, name) for rays in bundles])).to(triplane)

        origin, directions, near, far = (stacked(name) for name in ("origin", "directions", "near", "far"))
        at_once = max(1, _POINTS_AT_ONCE[triplane.device.type] // (batch * num_samples))
        parts = []
        for start in range(0, image_size**2, at_once):
            part = slice(start, start + at_once)
            arguments = (triplane, origin, directions[:, part], near[:, part], far[:, part], num_samples, jitter)
            if torch.is_grad_enabled() and start + at_once < image_size**2 and jitter is None:
                colour, alpha, _ = checkpoint(self.march, *arguments, use_reentrant=False)
            else:
                colour, alpha, _ = self.march(*arguments)
            parts.append(colour + (1 - alpha))
        picture = torch.cat(parts, dim=1)
        return picture.transpose(1, 2).reshape(batch, 3, image_size, image_size)

    def march(
        self,
        triplane: Tensor,
        origin: Tensor,
        directions: Tensor,
        near: Tensor,
        far: Tensor,
        num_samples: int,
        jitter: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws rays by the `quadrature` of all their samples.

        Args:
            triplane: (B, 3, C, H, W).
            origin: (B, 3) world.
            directions: (B, R, 3) of unit length.
            near: (B, R) distance at which the ray enters the cube.
            far: (B, R) distance at which it leaves it.
            num_samples: as in `render_volume`.
            jitter: as in `render_volume`.

        Returns:
            colour: (B, R, 3), premultiplied by alpha; alpha: (B, R, 1) in [0, 1]; optical depth: (B, R, 1), of which
            alpha is 1 - exp(-depth).
        """
        batch, rays = near.shape
        offsets: Tensor | float = 0.5
        if jitter is not None:
            offsets = torch.rand(batch, rays, num_samples, generator=jitter, device=near.device)
        step = ((far - near) / num_samples)[..., None]
        distances = near[..., None] + step * (torch.arange(num_samples, device=near.device) + offsets)
        points = origin[:, None, None] + distances[..., None] * directions[:, :, None]
        rgb, density = self(triplane, points.reshape(batch, -1, 3))
        density = density.reshape(batch, rays, num_samples)
        weights, depth = quadrature(density, step)
        colour = (weights[..., None] * rgb.reshape(batch, rays, num_samples, 3)).sum(-2)
        return colour, -torch.expm1(-depth), depth


def quadrature(density: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Emission-absorption quadrature along rays, front to back (Max 1995, equation 9, as in NeRF).

    Args:
        density: (..., R, S) per scene unit.
        step: (..., R, 1) length of each ray's intervals.

    Returns:
        (..., R, S), what each sample gives to its pixel; (..., R, 1), the optical depth: alpha is 1 - exp(-depth).
    """
    optical = density * step
    passed = optical.cumsum(-1)
    return torch.exp(optical - passed) * -torch.expm1(-optical), passed[..., -1:]

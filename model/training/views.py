"""Posed views of procedural objects: exact ray casting with antialiasing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.cameras import Camera
from runtime.rays import camera_rays

from .solids import Solids, first_hits

_RAYS_AT_ONCE = 1 << 19
_MISSED = 1e8


def render_views(solids: Solids, cameras: Sequence[Camera], size: int, supersampling: int = 2) -> Tensor:
    """Draws each object from each camera.

    Args:
        solids: B objects.
        cameras: V cameras outside the unit sphere, shared by all objects.
        size: side of the pictures in pixels.
        supersampling: rays per pixel and axis.

    Returns:
        (B, V, 4, size, size) float32 RGBA in [0, 1], alpha not premultiplied, on the device of `solids`.
    """
    fine = size * supersampling
    device = solids.kind.device
    views = []
    for camera in cameras:
        rays = camera_rays(camera, fine, fine)
        # The object is inside the unit sphere: rays that pass it by need no solid.
        closest = np.linalg.norm(np.cross(rays.directions, rays.origin), axis=1)
        near = torch.from_numpy(np.flatnonzero(closest < 1)).to(device)
        directions = torch.from_numpy(rays.directions).to(device)[near]
        origin = torch.from_numpy(rays.origin).to(device)
        premultiplied = torch.zeros(len(solids), fine * fine, 4, device=device)
        at_once = max(1, _RAYS_AT_ONCE // (len(solids) * solids.kind.shape[1]))
        for part in torch.arange(near.numel(), device=device).split(at_once):
            toward = directions[part].expand(len(solids), -1, -1)
            distance, colour = first_hits(solids, origin.expand_as(toward), toward)
            hit = (distance < _MISSED)[..., None].float()
            premultiplied[:, near[part]] = torch.cat([colour * hit, hit], dim=-1)
        picture = premultiplied.reshape(len(solids), fine, fine, 4).permute(0, 3, 1, 2)
        picture = F.avg_pool2d(picture, supersampling)
        alpha = picture[:, 3:]
        views.append(torch.cat([picture[:, :3] / alpha.clamp(min=1e-6), alpha], dim=1))
    return torch.stack(views, dim=1)


def over_white(rgba: Tensor) -> Tensor:
    """(..., 4, H, W) not premultiplied to (..., 3, H, W) over white."""
    rgb, alpha = rgba[..., :3, :, :], rgba[..., 3:, :, :]
    return rgb * alpha + (1 - alpha)

"""The teacher: a network that sees the object itself and gives the planes that the model is to predict.

Planes fitted to each object by gradient descent hold the noise of their fitting in their details. A network's planes
are a function of the object, so that there is something to predict (triplane autoencoders as in 3DGen, Gupta et al.
2023, with orthographic views in place of points). It is used in training alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from runtime.geometry.triplane import PLANE_AXES

from ..checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from ..layers import ResBlock, conv3x3, norm, upsample
from ..renderer import TriplaneRenderer
from .data.pools import TEACHER_CHANNELS

_FORMAT = "wavelet-triplane-teacher/1"


class Exchange(nn.Module):
    """What the planes tell one another: means and maxima along the axes that two of them do not share.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """features: (B * 3, C, H, H), the planes of an object together. Returns the same shape."""
        planes = rearrange(features, "(b p) c h w -> p b c h w", p=3)
        profiles: dict[tuple[int, int], Tensor] = {}
        for plane, (column, row, sign) in enumerate(PLANE_AXES):
            across, down = (torch.cat([planes[plane].mean(d), planes[plane].amax(d)], 1) for d in (-2, -1))
            profiles[plane, column], profiles[plane, row] = across, down if sign > 0 else down.flip(-1)
        told = []
        side = features.shape[-1]
        for plane, (column, row, sign) in enumerate(PLANE_AXES):
            others = [other for other in range(3) if other != plane]
            across = next(profiles[other, column] for other in others if (other, column) in profiles)
            down = next(profiles[other, row] for other in others if (other, row) in profiles)
            down = down if sign > 0 else down.flip(-1)
            told.append(
                torch.cat(
                    [across[..., None, :].expand(-1, -1, side, -1), down[..., None].expand(-1, -1, -1, side)], dim=1
                )
            )
        return features + self.join(rearrange(torch.stack(told), "p b c h w -> (b p) c h w"))


class Teacher(nn.Module):
    """Six orthographic views to the four wavelet bands of the three planes.

    Args:
        channels: C of the triplane.
        resolution: side R of the bands; the views are 2R.
        hidden_dim: width of the decoder's hidden layers.
        density_bias: density logit that the decoder starts from.
        width: base width of the U-Net, a multiple of 8.

    Attributes:
        renderer: the decoder that reads the planes, trained along; the model's starts as a copy of it.
    """

    places: Tensor

    def __init__(
        self, channels: int, resolution: int, hidden_dim: int = 128, density_bias: float = -4.0, width: int = 48
    ) -> None:
        super().__init__()
        self.sizes = {"channels": channels, "resolution": resolution, "hidden_dim": hidden_dim, "width": width}
        w1, w2, w3 = width, 2 * width, 4 * width
        self.planes = nn.Parameter(0.02 * torch.randn(3, width, 1, 1))
        self.enter = conv3x3(4 * TEACHER_CHANNELS + 2, w1)
        self.down1, self.shrink1 = ResBlock(w1, w1), conv3x3(w1, w2, 2)
        self.down2, self.tell2, self.shrink2 = ResBlock(w2, w2), Exchange(w2), conv3x3(w2, w3, 2)
        self.middle1, self.tell3, self.middle2 = ResBlock(w3, w3), Exchange(w3), ResBlock(w3, w3)
        self.up2, self.tell2_up = ResBlock(w3 + w2, w2), Exchange(w2)
        self.up1 = ResBlock(w2 + w1, w1)
        self.leave = nn.Sequential(norm(w1), nn.GELU(), conv3x3(w1, 4 * channels))
        self.renderer = TriplaneRenderer(channels, hidden_dim, density_bias)
        line = (torch.arange(resolution) + 0.5) * 2 / resolution - 1
        self.register_buffer("places", torch.stack(torch.meshgrid(line, line, indexing="ij"))[None], persistent=False)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """The planes of objects.

        Args:
            views: (B, 3, TEACHER_CHANNELS, 2R, 2R) as `Pool.orthographic` gives them.

        Returns:
            LL: (B, 3, C, R, R); details: (B, 3, 3C, R, R), LH, HL and HH stacked; in the triplane's units.
        """
        x = rearrange(views, "b p c (h i) (w j) -> (b p) (c i j) h w", i=2, j=2)
        x = torch.cat([x, self.places.expand(len(x), -1, -1, -1).to(x)], dim=1)
        skip1 = self.down1(self.enter(x) + self.planes.repeat(len(views), 1, 1, 1))
        skip2 = self.tell2(self.down2(self.shrink1(skip1)))
        h = self.middle2(self.tell3(self.middle1(self.shrink2(skip2))))
        h = self.tell2_up(self.up2(torch.cat([upsample(h), skip2], dim=1)))
        h = self.up1(torch.cat([upsample(h), skip1], dim=1))
        bands = rearrange(self.leave(h), "(b p) c h w -> b p c h w", p=3)
        channels = self.sizes["channels"]
        return bands[:, :, :channels], bands[:, :, channels:]

    def save(self, path: Path) -> None:
        """Writes the weights as float16, with the sizes in the header, atomically."""
        weights = {name: value.detach().half() for name, value in self.state_dict().items()}
        write_checkpoint(path, _FORMAT, weights, {"sizes": self.sizes})

    @classmethod
    def load(cls, path: Path) -> Teacher:
        """Reads what `save` wrote. Raises `CheckpointError` where the file is missing, damaged or none of ours."""
        weights, header = read_checkpoint(path, _FORMAT)
        try:
            teacher = cls(**header["sizes"])
            teacher.load_state_dict(weights)
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit the teacher that its header describes ({error}).") from error
        return teacher

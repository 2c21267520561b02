"""The model's configuration: what a checkpoint has to remember to be built again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model.

    Attributes:
        triplane_channels: features per texel of the triplane, C.
        num_diffusion_steps: length of the training noise schedule, T.
        resolution: side of the low-resolution planes, a multiple of 16; the planes come out at twice, the image goes
            in at four times this size.
        hidden_dim: width of the renderer's MLP.
        time_embed_dim: width of the timestep embedding.
        density_bias: the density logit that an untrained renderer starts from; below 0 is nearly empty space.
    """

    triplane_channels: int = 32
    num_diffusion_steps: int = 1000
    resolution: int = 64
    hidden_dim: int = 128
    time_embed_dim: int = 128
    density_bias: float = -2.0

    def __post_init__(self) -> None:
        for name in ("triplane_channels", "resolution", "hidden_dim", "time_embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.num_diffusion_steps < 2:
            raise ValueError(f"num_diffusion_steps must be at least 2, not {self.num_diffusion_steps}.")
        if self.resolution % 16:
            raise ValueError(f"resolution must be a multiple of 16, not {self.resolution}.")

    @property
    def image_size(self) -> int:
        """Side of the square input image in pixels."""
        return 4 * self.resolution


PRESETS = {
    "small": ModelConfig(triplane_channels=16),
    "medium": ModelConfig(triplane_channels=32),
    "large": ModelConfig(triplane_channels=64),
}


def network_width(triplane_channels: int) -> int:
    """Base width of the convolutional networks, a multiple of 16 so that tensor units are filled.

    48, 80 and 160 for the presets, which gives about 5, 15 and 60 million parameters.
    """
    return 16 * round(1 + 0.14 * triplane_channels)

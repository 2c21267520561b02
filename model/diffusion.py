"""Stage 2: the conditional U-Net that denoises the high-frequency bands of a plane."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runtime.diffusion.schedule import cosine_schedule

from .config import network_width
from .layers import ResBlock, UpBlock, conv3x3, norm, sinusoidal_embedding


class DetailDiffusion(nn.Module):
    """Predicts clean details from noisy ones and the LL band of the same plane.

    What depends on the LL band alone is computed by `encode_condition`, once for a whole sampling run; `denoise` is
    what a step has to repeat. Inside, the network predicts v = alpha * noise - sigma * x0 (Salimans and Ho 2022), from
    which x0 = alpha * x - sigma * v is well conditioned at every timestep.

    Args:
        triplane_channels: C; details have 3C channels (LH, HL, HH).
        time_embed_dim: width of the timestep embedding, even.
        num_diffusion_steps: length T of the noise schedule.
    """

    alpha: Tensor
    sigma: Tensor

    def __init__(self, triplane_channels: int = 32, time_embed_dim: int = 128, num_diffusion_steps: int = 1000) -> None:
        super().__init__()
        width = network_width(triplane_channels)
        w1, w2, w3 = width, 2 * width, 4 * width
        self.time_embed_dim = time_embed_dim
        alpha, sigma = cosine_schedule(num_diffusion_steps)
        self.register_buffer("alpha", torch.tensor(alpha, dtype=torch.float32), persistent=False)
        self.register_buffer("sigma", torch.tensor(sigma, dtype=torch.float32), persistent=False)
        self.time_mlp = nn.Sequential(
            nn.Linear(time_embed_dim, time_embed_dim), nn.GELU(), nn.Linear(time_embed_dim, time_embed_dim), nn.GELU()
        )
        self.condition_encoder = nn.Sequential(conv3x3(triplane_channels, w1), ResBlock(w1, w1), conv3x3(w1, w1))
        self.enter = conv3x3(3 * triplane_channels, w1)
        self.down1 = ResBlock(w1, w1, time_embed_dim)
        self.shrink1 = conv3x3(w1, w2, 2)
        self.down2 = ResBlock(w2, w2, time_embed_dim)
        self.shrink2 = conv3x3(w2, w3, 2)
        self.middle1 = ResBlock(w3, w3, time_embed_dim)
        self.middle2 = ResBlock(w3, w3, time_embed_dim)
        self.up2 = UpBlock(w3, w2, w2, time_embed_dim)
        self.up1 = UpBlock(w2, w1, w1, time_embed_dim)
        self.leave = nn.Sequential(norm(w1), nn.GELU(), conv3x3(w1, 3 * triplane_channels))

    def encode_condition(self, condition_LL: Tensor) -> Tensor:
        """The part that no timestep changes: (B, C, R, R) standardised LL band to (B, width, R, R)."""
        return self.condition_encoder(condition_LL)

    def velocity(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """What the network itself predicts, v = alpha noise - sigma x0.

        Args:
            noisy: (B, 3C, R, R).
            timestep: (B,) or (1,), any real dtype.
            condition: (B, width, R, R).

        Returns:
            (B, 3C, R, R).
        """
        time = self.time_mlp(sinusoidal_embedding(timestep, self.time_embed_dim))
        skip1 = self.down1(self.enter(noisy) + condition, time)
        skip2 = self.down2(self.shrink1(skip1), time)
        h = self.middle2(self.middle1(self.shrink2(skip2), time), time)
        return self.leave(self.up1(self.up2(h, time, skip2), time, skip1))

    def denoise(self, noisy: Tensor, timestep: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Predicted clean details (B, 3C, R, R); alpha and sigma are the schedule at `timestep`, broadcastable."""
        return alpha * noisy - sigma * self.velocity(noisy, timestep, condition)

    def forward(self, noisy_details: Tensor, timestep: Tensor, condition_LL: Tensor) -> Tensor:
        """Predicts the clean details of one plane per item from its LL band alone.

        The whole model's sampling also tells the denoiser which plane it is and what the coarse generator knows beyond
        the LL band: `WaveletTriplaneDiffusion.predict_ll`.

        Args:
            noisy_details: (B, 3C, R, R), LH, HL and HH stacked, standardised.
            timestep: (B,) integers from 0 to T-1.
            condition_LL: (B, C, R, R), standardised.

        Returns:
            (B, 3C, R, R).
        """
        alpha, sigma = (values[timestep][:, None, None, None] for values in (self.alpha, self.sigma))
        return self.denoise(noisy_details, timestep, alpha, sigma, self.encode_condition(condition_LL))

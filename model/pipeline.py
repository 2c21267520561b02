"""The whole model: image to triplane to image, as one differentiable PyTorch module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from runtime.diffusion.noise import seeds_of
from runtime.diffusion.plan import SamplingPlan, run_sampler
from runtime.diffusion.schedule import cosine_schedule
from runtime.geometry.cameras import Camera

from .checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from .coarse import CoarseTriplaneGen
from .config import ModelConfig, network_width
from .diffusion import DetailDiffusion
from .renderer import TriplaneRenderer
from .wavelet import WaveletTransform

_FORMAT = "wavelet-triplane-diffusion/1"


class WaveletTriplaneDiffusion(nn.Module):
    """Coarse generator, detail diffusion, inverse wavelet transform and renderer.

    Args:
        triplane_channels: C; 16, 32 and 64 are the presets small, medium and large.
        num_diffusion_steps: length T of the training noise schedule.
        resolution: side R of the low-resolution planes; the image goes in at 4R, the triplane comes out at 2R.
        hidden_dim: width of the renderer's MLP.
        time_embed_dim: width of the timestep embedding.
        density_bias: density logit that the untrained renderer starts from.

    Attributes:
        detail_mean: (3, 3C) buffer, mean of the training set's details; the diffusion works on standardised ones.
        detail_std: (3, 3C) buffer, their standard deviation.
        notes: JSON values that travel with the checkpoint: `{"trained": False}` for fresh weights.
    """

    detail_mean: Tensor
    detail_std: Tensor

    def __init__(
        self,
        triplane_channels: int = 32,
        num_diffusion_steps: int = 1000,
        *,
        resolution: int = 64,
        hidden_dim: int = 128,
        time_embed_dim: int = 128,
        density_bias: float = -2.0,
    ) -> None:
        super().__init__()
        self.config = ModelConfig(
            triplane_channels, num_diffusion_steps, resolution, hidden_dim, time_embed_dim, density_bias
        )
        self.coarse_gen = CoarseTriplaneGen(3, triplane_channels, resolution)
        self.detail_diffusion = DetailDiffusion(triplane_channels, time_embed_dim, num_diffusion_steps)
        width = network_width(triplane_channels)
        self.context = nn.Conv2d(width, width, 1)
        # Tells the denoiser, which sees one plane at a time, which of the three it is.
        self.plane_embedding = nn.Parameter(0.02 * torch.randn(3, width, 1, 1))
        self.wavelet = WaveletTransform()
        self.renderer = TriplaneRenderer(triplane_channels, hidden_dim, density_bias)
        self.register_buffer("detail_mean", torch.zeros(3, 3 * triplane_channels))
        self.register_buffer("detail_std", torch.ones(3, 3 * triplane_channels))
        self.notes: dict[str, Any] = {"trained": False}

    @classmethod
    def from_config(cls, config: ModelConfig) -> WaveletTriplaneDiffusion:
        """Builds an untrained model of the given sizes."""
        return cls(**asdict(config))

    def save(self, path: str | Path, trained: bool | None = None, half: bool = False) -> None:
        """Writes weights, configuration and notes as one safetensors file, atomically.

        Args:
            path: of the file.
            trained: sets that note; pass True after training, so that what is exported from it is not called untrained.
            half: writes the weights as float16.
        """
        if trained is not None:
            self.notes["trained"] = trained
        weights = self.state_dict()
        if half:
            # Statistics are buffers: they stay as exact as they are.
            weights |= {name: parameter.detach().half() for name, parameter in self.named_parameters()}
        write_checkpoint(Path(path), _FORMAT, weights, {"config": asdict(self.config), "notes": self.notes})

    @classmethod
    def load(cls, path: str | Path) -> WaveletTriplaneDiffusion:
        """Reads what `save` wrote, in evaluation mode, the weights as float32.

        Raises:
            CheckpointError: the file is missing, damaged, or none of ours.
        """
        weights, header = read_checkpoint(Path(path), _FORMAT)
        try:
            model = cls.from_config(ModelConfig(**header["config"]))
            model.load_state_dict(weights)
            model.notes = dict(header["notes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit the model that its header describes ({error}).") from error
        return model.eval()

    def predict_ll(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1, and all that stage 2 needs of it.

        Args:
            images: (B, 3, 4R, 4R) in [-1, 1].

        Returns:
            LL: (B, 3, C, R, R) as the triplane has it.
            condition: (B, 3, width, R, R), the denoiser's input that no step changes: the encoded LL band, which plane
            it is, and what the coarse generator knows beyond the LL band.
        """
        return self.predict_ll_from(self.coarse_gen.features(images))

    def predict_ll_from(self, features: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`predict_ll` from the coarse generator's features.

        Args:
            features: (B * 3, width, R, R).
            noise: (B, 3, C, R, R), added to the standardised LL band that the condition encodes, in training; None for
                none.
        """
        standard = self.coarse_gen.read_out(features)
        told = standard if noise is None else standard + noise
        encoded = self.detail_diffusion.encode_condition(rearrange(told, "b p c h w -> (b p) c h w"))
        condition = rearrange(encoded + self.context(features), "(b p) c h w -> b p c h w", p=3) + self.plane_embedding
        return self.coarse_gen.in_units(standard), condition

    def step(
        self, noisy: Tensor, condition: Tensor, previous: Tensor, noise: Tensor, row: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One sampling step for all planes of all items.

        Args:
            noisy: (B, 3, 3C, R, R), the state.
            previous: of the same shape, the last prediction of x0.
            noise: of the same shape, fresh normals.
            condition: (B, 3, width, R, R) from `predict_ll`.
            row: (7,) float32, a row of a sampler table (columns as in `runtime.diffusion.samplers.COLUMNS`).

        Returns:
            The next state and this step's prediction of x0, both like `noisy`, standardised.
        """
        timestep, alpha, sigma, a, b, c, d = row.unbind()
        flat = (rearrange(t, "b p c h w -> (b p) c h w") for t in (noisy, condition))
        flat_noisy, flat_condition = flat
        predicted = self.detail_diffusion.denoise(flat_noisy, timestep[None], alpha, sigma, flat_condition)
        x0 = rearrange(predicted, "(b p) c h w -> b p c h w", p=3)
        return a * noisy + b * x0 + c * previous + d * noise, x0

    def sample_details(
        self, condition: Tensor, steps: int = 4, seed: int | Sequence[int] = 0, sampler: str = "ddim"
    ) -> Tensor:
        """Stage 2: the reverse diffusion from seeded noise.

        Args:
            condition: (B, 3, width, R, R) from `predict_ll`.
            steps: evaluations of the network, 1 to T.
            seed: one for all items, or one each.
            sampler: a name in `runtime.diffusion.samplers.SAMPLERS`.

        Returns:
            (B, 3, 3C, R, R) details in the triplane's own units.
        """
        config = self.config
        schedule = cosine_schedule(config.num_diffusion_steps)
        plan = SamplingPlan.make(sampler, steps, schedule, config.triplane_channels, config.resolution)
        rows = torch.tensor(plan.table, dtype=torch.float32, device=condition.device)
        noise = torch.tensor(plan.noise(seeds_of(seed, len(condition)))).to(condition)

        def step(noisy: Tensor, previous: Tensor, fresh: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            return self.step(noisy, condition, previous, fresh, row)

        return self.in_units(run_sampler(rows, noise, step))

    def in_units(self, standard: Tensor) -> Tensor:
        """Standardised details (B, 3, 3C, R, R) in the triplane's own units."""
        return standard * self.detail_std[:, :, None, None] + self.detail_mean[:, :, None, None]

    def reconstruct_planes(self, triplane_ll: Tensor, details: Tensor) -> Tensor:
        """Stage 3: LL (B, 3, C, R, R) and details (B, 3, 3C, R, R) to the triplane (B, 3, C, 2R, 2R)."""
        flat = rearrange(details, "b p (band c) h w -> band (b p) c h w", band=3)
        planes = self.wavelet.idwt2d(rearrange(triplane_ll, "b p c h w -> (b p) c h w"), *flat)
        return rearrange(planes, "(b p) c h w -> b p c h w", p=3)

    def forward(
        self,
        images: Tensor,
        return_intermediate: bool = False,
        *,
        steps: int = 4,
        seed: int | Sequence[int] = 0,
        sampler: str = "ddim",
        camera: Camera | Sequence[Camera] | None = None,
    ) -> dict[str, Tensor]:
        """All four stages, differentiable.

        Args:
            images: (B, 3, 4R, 4R) RGB in [-1, 1].
            return_intermediate: also returns what the stages hand on.
            steps: as in `sample_details`.
            seed: as in `sample_details`.
            sampler: as in `sample_details`.
            camera: for the rendering; None for the canonical one.

        Returns:
            `rendered_image` (B, 3, 64, 64) in [0, 1], drawn with 64 samples per ray; with `return_intermediate` also
            `input_images`, `triplane_LL` (B, 3, C, R, R), `triplane_details` (B, 3, 3C, R, R) and `triplane_highres`
            (B, 3, C, 2R, 2R).
        """
        triplane_ll, condition = self.predict_ll(images)
        details = self.sample_details(condition, steps, seed, sampler)
        highres = self.reconstruct_planes(triplane_ll, details)
        outputs = {"rendered_image": self.renderer.render_volume(highres, 64, 64, camera)}
        if return_intermediate:
            outputs |= {
                "input_images": images,
                "triplane_LL": triplane_ll,
                "triplane_details": details,
                "triplane_highres": highres,
            }
        return outputs

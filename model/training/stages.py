"""The four stages: shared decoder by fitting, coarse generator, detail diffusion, joint fine-tuning.

fit     planes of a few objects and the decoder they share, from exact points; gives the bands' statistics
coarse  the coarse generator and the decoder, from exact points and rays, with the details that LL itself implies
detail  target details by fitting planes from where the predicted LL band starts them, then the diffusion on those
joint   everything: points and rays through one sampling step, and the diffusion's own loss
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from runtime.sampler import sampler_table, trailing_timesteps
from runtime.schedule import cosine_schedule

from ..pipeline import WaveletTriplaneDiffusion
from .config import StageConfig, TrainConfig
from .data import Pool
from .fitting import fit_triplanes
from .loop import Losses
from .supervision import Truth, supervised, variation

_FIT_GROUP = 16
_SMOOTHNESS, _SIZE = 0.05, 1e-3
_DIFFUSION_WEIGHT = 0.2
# Objects, and points of each, that have to leave a unit of the decoder silent for it to be given up.
_HEARD, _HEARD_TOGETHER, _HEARD_POINTS = 256, 8, 1 << 14
# Gentle and smooth enough that two fits of one object, from other points, agree on its details (docs/decisions.md).
_TARGET_LEARNING_RATE, _TARGET_SMOOTHNESS = 5e-3, 300.0


class Draws:
    """Random numbers of one step: they depend on the run's seed, the stage and the step alone."""

    def __init__(self, config: TrainConfig, stage: str, step: int, device: torch.device) -> None:
        self.rng = np.random.default_rng([config.seed, zlib.crc32(stage.encode()), step])
        self.torch = torch.Generator(device).manual_seed(int(self.rng.integers(2**62)))

    def choose(self, count: int, batch: int) -> np.ndarray:
        """`batch` indices below `count`."""
        return self.rng.integers(0, count, batch)


class Stages:
    """What each stage optimises and how it computes its losses, over one model and one pool of objects."""

    def __init__(self, config: TrainConfig, model: WaveletTriplaneDiffusion, pool: Pool, folder: Path) -> None:
        self.config, self.model, self.pool, self.folder = config, model, pool, folder
        self.device = pool.device
        side, channels = 2 * model.config.resolution, model.config.triplane_channels
        generator = torch.Generator(self.device).manual_seed(config.seed)
        count = min(config.fit_objects, len(pool))
        shape = (count, 3, channels, side, side)
        self.fitted = nn.Parameter(0.05 * torch.randn(shape, generator=generator, device=self.device))
        self.alpha, self.sigma = model.detail_diffusion.alpha, model.detail_diffusion.sigma
        self._details: Tensor | None = None

    def autocast(self) -> torch.autocast:
        """Matrix products in the configured precision."""
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def parameters(self, stage: str) -> list[nn.Parameter]:
        """What `stage` optimises."""
        model = self.model
        coarse, renderer = list(model.coarse_gen.parameters()), list(model.renderer.parameters())
        detail = [*model.detail_diffusion.parameters(), *model.context.parameters(), model.plane_embedding]
        return {
            "fit": [self.fitted, *renderer],
            "coarse": [*coarse, *renderer],
            "detail": detail,
            "joint": [*coarse, *renderer, *detail],
        }[stage]

    def fit(self, step: int) -> Losses:
        """Fits the planes of some objects, and the decoder that all share."""
        draws = Draws(self.config, "fit", step, self.device)
        count = self.fitted.shape[0]
        chosen = draws.rng.permutation(count)[: min(self.config.fit.batch, count)]
        _, truth = self.pool.batch(chosen)
        planes = self.fitted[torch.from_numpy(chosen).to(self.device)]
        losses = self._supervised(planes, truth, self.config.fit, draws)
        regular = _SMOOTHNESS * variation(planes) + _SIZE * planes.square().mean()
        return losses | {"loss": losses["loss"] + regular}

    def set_statistics_from_fit(self) -> None:
        """Takes the LL band's mean and deviation per plane and channel from the fitted planes."""
        with torch.no_grad():
            ll = self.model.wavelet.dwt2d(self.fitted.flatten(0, 1))[0].unflatten(0, (-1, 3))
            self.model.coarse_gen.mean.copy_(ll.mean((0, 3, 4)))
            self.model.coarse_gen.std.copy_(ll.std((0, 3, 4)).clamp(min=1e-3))

    def coarse(self, step: int) -> Losses:
        """Trains the coarse generator and the decoder, with the details that bilinear upsampling of LL implies."""
        stage = self.config.coarse
        draws = Draws(self.config, "coarse", step, self.device)
        images, truth = self.pool.batch(draws.choose(len(self.pool), stage.batch))
        with self.autocast():
            ll = self._checkpointed(self.model.coarse_gen, images)
        ll = ll.float()
        return self._supervised(self.model.reconstruct_planes(ll, self._implied(ll)), truth, stage, draws)

    def fit_details(self) -> None:
        """Fits target details for the first `detail_objects`, from the predicted LL band on; kept on disk."""
        count = min(self.config.detail_objects, len(self.pool))
        folder = self.folder / "details"
        folder.mkdir(exist_ok=True)
        starts = range(0, count, _FIT_GROUP)
        paths = [folder / f"{start}.npy" for start in starts]
        for start, path in track(list(zip(starts, paths, strict=True)), "fitting details", transient=True):
            if not path.exists():
                fitted = self._fit_group(np.arange(start, min(start + _FIT_GROUP, count)))
                partial = path.with_suffix(".partial")
                with partial.open("wb") as file:
                    np.save(file, fitted.half().cpu().numpy())
                partial.replace(path)
        self._details = torch.from_numpy(np.concatenate([np.load(path) for path in paths]))
        with torch.no_grad():
            self.model.detail_mean.copy_(self._details.float().mean((0, 3, 4)))
            self.model.detail_std.copy_(self._details.float().std((0, 3, 4)).clamp(min=1e-4))

    def detail(self, step: int) -> Losses:
        """Trains the diffusion on the fitted details, conditioned on the predicted LL band."""
        stage = self.config.detail
        draws = Draws(self.config, "detail", step, self.device)
        chosen = draws.choose(len(self._targets), stage.batch)
        images, _ = self.pool.batch(chosen)
        with self.autocast():
            _, condition = self._predict(images, grad=False)
            loss = self._diffusion_loss(condition, chosen, draws)
        return {"loss": loss}

    def joint(self, step: int) -> Losses:
        """Trains everything: the planes after one sampling step from noise, and the diffusion at random timesteps.

        The first is supervised on any object, the second on the few whose details were fitted.
        """
        stage = self.config.joint
        draws = Draws(self.config, "joint", step, self.device)
        images, truth = self.pool.batch(draws.choose(len(self.pool), stage.batch))
        known = draws.choose(len(self._targets), max(1, stage.batch // 4))
        with self.autocast():
            ll, condition = self._predict(images, grad=True)
            details = self._one_step(condition, draws)
            _, known_condition = self._predict(self.pool.batch(known)[0], grad=False)
            diffusion = self._diffusion_loss(known_condition, known, draws)
        losses = self._supervised(self.model.reconstruct_planes(ll.float(), details.float()), truth, stage, draws)
        return losses | {"loss": losses["loss"] + _DIFFUSION_WEIGHT * diffusion, "diffusion": diffusion}

    def silence(self) -> int:
        """Sets decoder units to zero that a sample of the objects does not make speak; returns how many are silent."""
        details = self._details is not None
        generator = torch.Generator(self.device).manual_seed(self.config.seed)
        count = min(_HEARD, len(self.pool))

        def features(start: int) -> Tensor:
            triplanes = self.reconstructions(range(start, min(start + _HEARD_TOGETHER, count)), details)
            shape = (len(triplanes), _HEARD_POINTS, 3)
            points = 2 * torch.rand(shape, generator=generator, device=self.device) - 1
            return self.model.renderer.query_triplane(triplanes, points).flatten(0, 1)

        return self.model.renderer.silence(map(features, range(0, count, _HEARD_TOGETHER)))

    @property
    def _targets(self) -> Tensor:
        if self._details is None:
            raise RuntimeError("The stages detail and joint need the details that fit_details() fits.")
        return self._details

    def _predict(self, images: Tensor, grad: bool) -> tuple[Tensor, Tensor]:
        """LL and condition; without `grad` the gradient ends at the coarse generator's features."""
        if grad:
            return self._checkpointed(self.model.predict_ll, images)
        with torch.no_grad():
            features = self.model.coarse_gen.features(images)
        return self.model.predict_ll_from(features)

    def _checkpointed(self, call: Callable[[Tensor], Any], images: Tensor) -> Any:
        if self.config.gradient_checkpointing:
            return checkpoint(call, images, use_reentrant=False)
        return call(images)

    def _supervised(self, triplane: Tensor, truth: Truth, stage: StageConfig, draws: Draws) -> Losses:
        return supervised(self.model.renderer, triplane, truth, stage, draws.rng, draws.torch)

    def _diffusion_loss(self, condition: Tensor, chosen: np.ndarray, draws: Draws) -> Tensor:
        """Mean squared error of the velocity (Salimans and Ho 2022) at timesteps favouring the noisy end."""
        target = self._standardised(self._targets[torch.from_numpy(chosen)].to(self.device).float())
        # The few steps that the runtime takes are noisy ones: the square root puts more of the training there.
        share = torch.rand(len(chosen), generator=draws.torch, device=self.device).sqrt()
        timestep = (share * len(self.alpha)).long().clamp(max=len(self.alpha) - 1)
        noise = torch.randn(target.shape, generator=draws.torch, device=self.device)
        alpha, sigma = (values[timestep][:, None, None, None, None] for values in (self.alpha, self.sigma))
        velocity = self.model.detail_diffusion.velocity(
            (alpha * target + sigma * noise).flatten(0, 1), timestep.repeat_interleave(3), condition.flatten(0, 1)
        )
        return (velocity.float() - (alpha * noise - sigma * target).flatten(0, 1)).square().mean()

    def _one_step(self, condition: Tensor, draws: Draws) -> Tensor:
        """Details after a single step from pure noise, differentiable; in the triplane's units."""
        config = self.model.config
        total, side = config.num_diffusion_steps, config.resolution
        table = sampler_table("ddim", *cosine_schedule(total), trailing_timesteps(total, 1))
        row = torch.tensor(table[0], dtype=torch.float32, device=self.device)
        shape = (len(condition), 3, 3 * config.triplane_channels, side, side)
        noise = torch.randn(shape, generator=draws.torch, device=self.device)
        x, _ = self.model.step(noise, condition, torch.zeros_like(noise), noise, row)
        return self.model.in_units(x)

    def _standardised(self, details: Tensor) -> Tensor:
        return (details - self.model.detail_mean[:, :, None, None]) / self.model.detail_std[:, :, None, None]

    def _implied(self, ll: Tensor) -> Tensor:
        """Details (B, 3, 3C, R, R) that bilinear upsampling of LL (B, 3, C, R, R) implies."""
        return self.model.wavelet.bilinear_details(ll.flatten(0, 1)).unflatten(0, (-1, 3))

    def _fit_group(self, chosen: np.ndarray) -> Tensor:
        """Details (G, 3, 3C, R, R) of the planes that best explain a group of objects, near what is predicted."""
        images, truth = self.pool.batch(chosen)
        with torch.no_grad(), self.autocast():
            ll = torch.cat([self._predict(part, grad=False)[0].float() for part in images.split(4)])
        start = self.model.reconstruct_planes(ll, self._implied(ll))
        stage = replace(self.config.detail, steps=self.config.detail_fit_steps, lr=_TARGET_LEARNING_RATE)
        seed = self.config.seed + int(chosen[0])
        planes = fit_triplanes(start, truth, self.model.renderer, stage, seed, smoothness=_TARGET_SMOOTHNESS)
        bands = self.model.wavelet.dwt2d(planes.flatten(0, 1))
        return torch.cat(bands[1:], dim=1).unflatten(0, (-1, 3))

    def reconstructions(self, indices: Iterator[int] | range, details: bool) -> Tensor:
        """Triplanes (N, 3, C, 2R, 2R) of pool objects as the model predicts them now; `details` by four DDIM steps."""
        images, _ = self.pool.batch(np.fromiter(indices, int))
        with torch.no_grad(), self.autocast():
            ll, condition = self.model.predict_ll(images)
            bands = self.model.sample_details(condition.float(), 4) if details else self._implied(ll.float())
        return self.model.reconstruct_planes(ll.float(), bands.float())

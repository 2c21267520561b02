"""The four stages: teacher, coarse generator, detail diffusion, joint fine-tuning.

teacher  a network that sees the object itself, and the decoder that all share; gives the bands' statistics
coarse   the coarse generator against the teacher's LL bands, with points and rays through the teacher's decoder
detail   the diffusion against the teacher's details, on the predicted LL bands
joint    everything: points and rays through one sampling step, and both of the teacher's targets
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from runtime.diffusion.samplers import sampler_table, trailing_timesteps
from runtime.diffusion.schedule import cosine_schedule

from ..pipeline import WaveletTriplaneDiffusion
from .config import STAGE_TABLES, StageConfig, TrainConfig
from .data.pools import MixedPool
from .loop import Losses
from .pruning import zero_inactive_units
from .supervision import Truth, supervised
from .targets import KeptBands
from .teacher import Teacher

STAGES = STAGE_TABLES
# Keeps bands small where nothing is to be said.
_BAND_SIZE = 1e-3
_DIFFUSION_WEIGHT, _DENSE_WEIGHT = 0.2, 0.2
# Noise on the LL band that the diffusion is conditioned on, at most, in its standard deviations: it is known less well
# on objects that training never saw.
_CONDITION_NOISE = 0.2
# Objects whose bands make the statistics.
_COUNTED, _COUNTED_TOGETHER = 256, 8
# Objects, and points of each, that must not activate a unit of the decoder for it to be given up.
_PRUNED_OVER, _PRUNED_TOGETHER, _PRUNED_POINTS = 256, 8, 1 << 14
# Where meshes may be cut, and the objects and points that say where.
_SURFACE_LEVELS = (0.0, -0.25, -0.5, -0.75, -1.0, -1.25, -1.5, -2.0)
_CUT_OVER, _CUT_TOGETHER, _CUT_POINTS = 64, 4, 1 << 13


class Draws:
    """Random numbers of one step: they depend on the run's seed, the stage and the step alone."""

    def __init__(self, config: TrainConfig, stage: str, step: int, device: torch.device) -> None:
        self.rng = np.random.default_rng([config.seed, zlib.crc32(stage.encode()), step])
        self.torch = torch.Generator(device).manual_seed(int(self.rng.integers(2**62)))


class Stages:
    """What each stage optimises and how it computes its losses, over one model, its teacher and one pool of objects.

    Args:
        config: of the run.
        model: on the device that trains.
        teacher: on the same device; None where the run has none.
        pool: of training objects.
        folder: where the teacher's LL bands are kept if the configuration wants it; None for nowhere.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: WaveletTriplaneDiffusion,
        teacher: Teacher | None,
        pool: MixedPool,
        folder: Path | None = None,
    ) -> None:
        self._folder = folder
        self._kept: KeptBands | None = None
        self.config, self.model, self.pool = config, model, pool
        self.device = model.plane_embedding.device
        self._teacher = teacher
        self.alpha, self.sigma = model.detail_diffusion.alpha, model.detail_diffusion.sigma

    def autocast(self) -> torch.autocast:
        """Matrix products in the configured precision."""
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.config.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def parameters(self, stage: str) -> list[nn.Parameter]:
        """What `stage` optimises."""
        model = self.model
        coarse, renderer = list(model.coarse_gen.parameters()), list(model.renderer.parameters())
        detail = [*model.detail_diffusion.parameters(), *model.context.parameters(), model.plane_embedding]
        if stage == "teacher":
            return list(self.teacher_network.parameters())
        if stage == "coarse":
            # The teacher's planes are for its decoder. Without a teacher the decoder learns along.
            return coarse if self._teacher is not None else [*coarse, *renderer]
        return detail if stage == "detail" else [*coarse, *renderer, *detail]

    @property
    def teacher_network(self) -> Teacher:
        """The teacher. Raises `RuntimeError` where the run has none."""
        if self._teacher is None:
            raise RuntimeError("This run has no teacher.")
        return self._teacher

    def teacher(self, step: int) -> Losses:
        """Trains the teacher and its decoder on points and rays."""
        stage = self.config.teacher
        draws, chosen = self._begin("teacher", step, stage)
        with self.autocast():
            ll, details = self.teacher_network(self._views(chosen))
        ll, details = ll.float(), details.float()
        planes = self.model.reconstruct_planes(ll, details)
        renderer = self.teacher_network.renderer
        losses = supervised(renderer, planes, self.pool.truth(chosen), stage, draws.rng, draws.torch)
        size = ll.square().mean() + details.square().mean()
        return losses | {"loss": losses["loss"] + _BAND_SIZE * size, "size": size}

    def learn_from_teacher(self) -> None:
        """Takes the teacher's decoder, and its bands' means and deviations per plane and channel."""
        self.model.renderer.load_state_dict(self.teacher_network.renderer.state_dict())
        rng = np.random.default_rng(self.config.seed)
        sums = [torch.zeros(2, 3, bands, device=self.device) for bands in self._channels]
        for _ in range(_COUNTED // _COUNTED_TOGETHER):
            for total, bands in zip(sums, self.targets(self.pool.choose(rng, _COUNTED_TOGETHER)), strict=True):
                total += torch.stack([bands.mean((0, 3, 4)), bands.square().mean((0, 3, 4))])
        generator, model = self.model.coarse_gen, self.model
        for (mean, square), (into_mean, into_std) in zip(
            (total * _COUNTED_TOGETHER / _COUNTED for total in sums),
            ((generator.mean, generator.std), (model.detail_mean, model.detail_std)),
            strict=True,
        ):
            into_mean.copy_(mean)
            into_std.copy_((square - mean.square()).clamp(min=0).sqrt().clamp(min=1e-3))

    @property
    def _channels(self) -> tuple[int, int]:
        channels = self.model.config.triplane_channels
        return channels, 3 * channels

    def targets(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """The teacher's LL (B, 3, C, R, R) and details (B, 3, 3C, R, R) of pool objects, in the triplane's units."""
        return self.teacher_bands(self.pool.orthographic(chosen))

    def teacher_bands(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """The same from orthographic views (B, 3, TEACHER_CHANNELS, 2R, 2R)."""
        with torch.no_grad(), self.autocast():
            ll, details = self.teacher_network(views.to(self.device))
        return ll.float(), details.float()

    def _ll_targets(self, chosen: np.ndarray) -> Tensor:
        """The first of `targets`, from a file where they are kept."""
        if not self.config.keep_targets or self._folder is None:
            return self.targets(chosen)[0]
        if self._kept is None:
            config = self.model.config
            shape = (3, config.triplane_channels, config.resolution, config.resolution)
            self._kept = KeptBands(
                self._folder,
                self.teacher_network,
                f"{self.config.source} {self.config.precision}",
                len(self.pool),
                shape,
            )
        return self._kept.of(chosen, lambda missing: self.targets(missing)[0]).to(self.device)

    def coarse(self, step: int) -> Losses:
        """Trains the coarse generator, drawn with the details that bilinear upsampling of LL implies."""
        stage = self.config.coarse
        draws, chosen = self._begin("coarse", step, stage)
        with self.autocast():
            standard = self._checkpointed(
                lambda images: self.model.coarse_gen.read_out(self.model.coarse_gen.features(images)),
                self._images(chosen),
            )
        ll = self.model.coarse_gen.in_units(standard.float())
        planes = self.model.reconstruct_planes(ll, self.implied(ll))
        losses: Losses = {"loss": torch.zeros((), device=self.device)}
        if stage.points or stage.rays:
            losses = self._supervised(planes, self.pool.truth(chosen), stage, draws)
        if self._teacher is None:
            return losses
        dense = (standard.float() - self._standard_ll(self._ll_targets(chosen))).square().mean()
        return losses | {"loss": losses["loss"] + dense, "dense": dense}

    def detail(self, step: int) -> Losses:
        """Trains the diffusion on the teacher's details, conditioned on the predicted LL band."""
        draws, chosen = self._begin("detail", step, self.config.detail)
        with self.autocast():
            with torch.no_grad():
                features = self.model.coarse_gen.features(self._images(chosen))
            _, condition = self.model.predict_ll_from(features, self._condition_noise(len(chosen), draws))
            loss = self._diffusion_loss(condition, self.targets(chosen)[1], draws)
        return {"loss": loss}

    def joint(self, step: int) -> Losses:
        """Trains everything: the planes after one sampling step from noise, and both of the teacher's targets."""
        stage = self.config.joint
        draws, chosen = self._begin("joint", step, stage)
        with self.autocast():
            ll, condition = self._checkpointed(self.model.predict_ll, self._images(chosen))
            details = self._one_step(condition, draws)
        ll = ll.float()
        planes = self.model.reconstruct_planes(ll, details.float())
        losses = self._supervised(planes, self.pool.truth(chosen), stage, draws)
        if self._teacher is None:
            return losses
        true_ll, true_details = self.targets(chosen)
        dense = (self._standard_ll(ll) - self._standard_ll(true_ll)).square().mean()
        with self.autocast():
            diffusion = self._diffusion_loss(condition, true_details, draws)
        loss = losses["loss"] + _DIFFUSION_WEIGHT * diffusion + _DENSE_WEIGHT * dense
        return losses | {"loss": loss, "diffusion": diffusion, "dense": dense}

    def prune_decoder(self) -> int:
        """Sets decoder units to zero that a sample of the objects does not activate; returns how many."""
        generator = torch.Generator(self.device).manual_seed(self.config.seed)
        count = min(_PRUNED_OVER, len(self.pool))
        rng = np.random.default_rng(self.config.seed)

        def features(number: int) -> Tensor:
            triplanes = self.reconstructions(self.pool.choose(rng, number))
            shape = (len(triplanes), _PRUNED_POINTS, 3)
            points = 2 * torch.rand(shape, generator=generator, device=self.device) - 1
            return self.model.renderer.query_triplane(triplanes, points).flatten(0, 1)

        parts: Iterable[int] = [_PRUNED_TOGETHER] * (count // _PRUNED_TOGETHER) or [count]
        return zero_inactive_units(self.model.renderer, map(features, parts))

    def surface_logit(self) -> float:
        """Returns the density logit at which objects of the pool are cut best, by intersection over union."""
        rng = np.random.default_rng(self.config.seed)
        levels = torch.tensor(_SURFACE_LEVELS, device=self.device)[:, None, None]
        total = torch.zeros(len(_SURFACE_LEVELS), device=self.device)
        for _ in range(_CUT_OVER // _CUT_TOGETHER):
            chosen = self.pool.choose(rng, _CUT_TOGETHER)
            points = self.pool.truth(chosen).points(_CUT_POINTS, rng)
            where, inside, weight = (t.to(self.device) for t in (points.positions, points.inside, points.weight))
            with torch.no_grad():
                logit = self.model.renderer.logits(self.reconstructions(chosen), where)[1][..., 0]
            solid = logit > levels
            both, either = ((part * weight).sum(-1) for part in (solid & inside, solid | inside))
            total += (both / either.clamp(min=1e-6)).sum(-1)
        return _SURFACE_LEVELS[int(total.argmax())] if total.any() else 0.0

    def reconstructions(self, chosen: np.ndarray, details: bool = True) -> Tensor:
        """Triplanes (N, 3, C, 2R, 2R) of pool objects as the model predicts them now; `details` by one DDIM step."""
        return self.reconstructed(self._images(chosen), details)

    def reconstructed(self, images: Tensor, details: bool = True) -> Tensor:
        """Triplanes (N, 3, C, 2R, 2R) of images (N, 3, 4R, 4R); without `details` by bilinear upsampling of LL."""
        with torch.no_grad(), self.autocast():
            ll, condition = self.model.predict_ll(images.to(self.device))
            bands = self.model.sample_details(condition.float(), 1) if details else self.implied(ll.float())
        return self.model.reconstruct_planes(ll.float(), bands.float())

    def implied(self, ll: Tensor) -> Tensor:
        """Details (B, 3, 3C, R, R) that bilinear upsampling of LL (B, 3, C, R, R) implies."""
        return self.model.wavelet.bilinear_details(ll.flatten(0, 1)).unflatten(0, (-1, 3))

    def _begin(self, name: str, step: int, stage: StageConfig) -> tuple[Draws, np.ndarray]:
        draws = Draws(self.config, name, step, self.device)
        return draws, self.pool.choose(draws.rng, stage.batch)

    def _images(self, chosen: np.ndarray) -> Tensor:
        return self.pool.images(chosen).to(self.device)

    def _views(self, chosen: np.ndarray) -> Tensor:
        return self.pool.orthographic(chosen).to(self.device)

    def _checkpointed(self, call: Callable[[Tensor], Any], images: Tensor) -> Any:
        if self.config.gradient_checkpointing:
            return checkpoint(call, images, use_reentrant=False)
        return call(images)

    def _supervised(self, triplane: Tensor, truth: Truth, stage: StageConfig, draws: Draws) -> Losses:
        return supervised(self.model.renderer, triplane, truth, stage, draws.rng, draws.torch)

    def _condition_noise(self, batch: int, draws: Draws) -> Tensor:
        """Noise for standardised LL bands (B * 3, C, R, R), of another strength for each object."""
        config = self.model.config
        shape = (batch, 3, config.triplane_channels, config.resolution, config.resolution)
        strength = _CONDITION_NOISE * torch.rand((batch, 1, 1, 1, 1), generator=draws.torch, device=self.device)
        return strength * torch.randn(shape, generator=draws.torch, device=self.device)

    def _diffusion_loss(self, condition: Tensor, details: Tensor, draws: Draws) -> Tensor:
        """Mean squared error of the velocity (Salimans and Ho 2022) at timesteps favouring the noisy end."""
        target = (details - self.model.detail_mean[:, :, None, None]) / self.model.detail_std[:, :, None, None]
        # The few steps that the runtime takes are noisy ones: the square root puts more of the training there.
        share = torch.rand(len(target), generator=draws.torch, device=self.device).sqrt()
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

    def _standard_ll(self, ll: Tensor) -> Tensor:
        generator = self.model.coarse_gen
        return (ll - generator.mean[:, :, None, None]) / generator.std[:, :, None, None]

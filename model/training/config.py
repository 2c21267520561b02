"""One configuration for a whole training run, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..config import PRESETS


class ConfigError(ValueError):
    """A key that does not exist, or a value out of range."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        steps: optimiser steps; 0 leaves the stage out.
        batch: objects per step.
        lr: peak learning rate; cosine decay to 0 after the warm-up.
        points: supervised points per object, from procedural ones; rays: supervised rays per object; samples: points
            on each ray. In `detail` they are those of fitting the targets.
    """

    steps: int
    batch: int
    lr: float
    points: int = 4096
    rays: int = 0
    samples: int = 48


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Defaults are those of the small preset on a CPU.

    Attributes:
        preset: small, medium or large.
        resolution: side of the low-resolution planes; None for the preset's.
        data: folder of posed views to train on; empty for procedural objects. data_scale: multiplies the cameras'
            positions, to bring the objects into the unit sphere.
        objects: procedural training objects; first_seed: the seed of the first.
        init: checkpoint to start from instead of fresh weights, with the decoder and the statistics that it has.
        seed: of initial weights, batches, points and noise.
        fit_objects: objects whose triplanes are fitted together with the shared decoder.
        detail_objects: objects whose details are fitted as targets of the diffusion.
        detail_fit_steps: optimiser steps for each group of them.
        warmup: steps of linear warm-up; ema: decay of the averaged weights; clip: largest gradient norm.
        weight_decay: of AdamW.
        precision: float32 or bfloat16 for the networks' matrix products.
        gradient_checkpointing: recomputes activations of the coarse generator to save memory.
        save_every: steps between checkpoints; sample_every: steps between sample pictures.
        density_bias: density logit that the decoder starts from, nearly empty.
    """

    preset: str = "small"
    resolution: int | None = None
    data: str = ""
    data_scale: float = 1.0
    objects: int = 6000
    first_seed: int = 1_000_000
    init: str = ""
    seed: int = 0
    fit_objects: int = 48
    detail_objects: int = 1024
    detail_fit_steps: int = 60
    warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    weight_decay: float = 0.01
    precision: str = "bfloat16"
    gradient_checkpointing: bool = False
    save_every: int = 100
    sample_every: int = 500
    density_bias: float = -4.0
    fit: StageConfig = field(default_factory=lambda: StageConfig(600, 16, 1e-2))
    coarse: StageConfig = field(default_factory=lambda: StageConfig(3000, 8, 6e-4, 3072, 64))
    detail: StageConfig = field(default_factory=lambda: StageConfig(1500, 8, 4e-4))
    joint: StageConfig = field(default_factory=lambda: StageConfig(1000, 4, 2e-4, 3072, 128))

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"Unknown preset {self.preset!r}; there are {', '.join(PRESETS)}.")
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision must be float32 or bfloat16, not {self.precision!r}.")
        for name in ("objects", "fit_objects", "detail_objects", "save_every", "sample_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not (self.init or self.fit.steps):
            raise ConfigError("fit.steps can be 0 only with init: fresh weights need the decoder that the stage fits.")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be at least 0 and below 1, not {self.ema}.")


def load_config(path: Path) -> TrainConfig:
    """Reads a TOML file; stages are tables. Raises `ConfigError` for an unknown key."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a configuration ({error}).") from None
    return _build(TrainConfig, values, str(path))


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = set(values) - known
    if unknown:
        raise ConfigError(f"{where} has unknown keys {sorted(unknown)}; there are {sorted(known)}.")
    nested = {k: _build(StageConfig, v, f"{where}, [{k}]") if isinstance(v, dict) else v for k, v in values.items()}
    try:
        return kind(**nested)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}.") from None

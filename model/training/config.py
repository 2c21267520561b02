"""One configuration for a whole training run, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..config import PRESETS

KINDS = ("plain", "textured", "folder")


class ConfigError(ValueError):
    """A key that does not exist, or a value out of range."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        steps: optimiser steps; 0 leaves the stage out.
        batch: objects per step.
        lr: learning rate after the warm-up; over the last fifth of the steps it falls to 0.
        points: supervised points per object; rays: supervised rays per object; samples: points on each ray.
    """

    steps: int
    batch: int
    lr: float
    points: int = 2048
    rays: int = 160
    samples: int = 48


@dataclass(frozen=True)
class SourceConfig:
    """Where a share of the training objects comes from.

    Attributes:
        kind: "plain" or "textured" procedural objects, or "folder" for posed views on disk.
        share: of the objects in a batch, relative to the other sources'.
        objects, first_seed: how many procedural objects, and the seed of the first.
        path: folder of posed views. scale: multiplies their cameras' positions, to bring objects into the unit sphere.
    """

    kind: str = "plain"
    share: float = 1.0
    objects: int = 6000
    first_seed: int = 1_000_000
    path: str = ""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"A source's kind must be one of {', '.join(KINDS)}, not {self.kind!r}.")
        if self.share <= 0 or self.objects < 1:
            raise ConfigError(f"A source needs a share above 0 and at least 1 object: {self.share}, {self.objects}.")
        if (self.kind == "folder") != bool(self.path):
            raise ConfigError('A source has a path if its kind is "folder", and only then.')


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Defaults are those of the small preset on a CPU.

    Attributes:
        preset: small, medium or large.
        resolution: side of the low-resolution planes; None for the preset's.
        source: where objects come from.
        validation: folder of posed views for the figures during the run, beside procedural ones; empty for none.
        init: checkpoint to start from instead of fresh weights.
        teacher_init: checkpoint of a teacher that goes with `init`; its stage then goes on from it, or is left out.
        seed: of initial weights, batches, points and noise.
        warmup: steps of linear warm-up; ema: decay of the averaged weights; clip: largest gradient norm.
        weight_decay: of both optimisers.
        precision: float32 or bfloat16 for the networks' matrix products.
        gradient_checkpointing: recomputes activations of the coarse generator to save memory.
        save_every: steps between saved states; sample_every: steps between sample pictures.
        figures_every: minutes between figures on held-out objects; 0 for none.
        density_bias: density logit that the decoder starts from, nearly empty.
        teacher, coarse, detail, joint: the stages, in this order.
    """

    preset: str = "small"
    resolution: int | None = None
    source: tuple[SourceConfig, ...] = (SourceConfig(),)
    validation: str = ""
    init: str = ""
    teacher_init: str = ""
    seed: int = 0
    warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    weight_decay: float = 0.01
    precision: str = "bfloat16"
    gradient_checkpointing: bool = False
    save_every: int = 100
    sample_every: int = 500
    figures_every: float = 30.0
    density_bias: float = -4.0
    teacher: StageConfig = field(default_factory=lambda: StageConfig(3000, 8, 2e-3))
    coarse: StageConfig = field(default_factory=lambda: StageConfig(3000, 8, 8e-4, 1024, 64))
    detail: StageConfig = field(default_factory=lambda: StageConfig(1500, 8, 8e-4))
    joint: StageConfig = field(default_factory=lambda: StageConfig(1000, 4, 2e-4))

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"Unknown preset {self.preset!r}; there are {', '.join(PRESETS)}.")
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision must be float32 or bfloat16, not {self.precision!r}.")
        for name in ("save_every", "sample_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not self.source:
            raise ConfigError("A run needs at least one [[source]] of objects.")
        if not (self.init or self.teacher.steps):
            raise ConfigError("teacher.steps can be 0 only with init: fresh weights need the decoder that it trains.")
        if self.detail.steps and not (self.teacher.steps or self.teacher_init):
            raise ConfigError("The detail stage needs a teacher: set teacher.steps, or teacher_init.")
        if self.teacher_init and not self.init:
            raise ConfigError("teacher_init needs init: a teacher goes with the decoder that it was trained with.")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be at least 0 and below 1, not {self.ema}.")


def load_config(path: Path) -> TrainConfig:
    """Reads a TOML file; stages are tables, sources an array of tables. Raises `ConfigError` for an unknown key."""
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
    nested: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            nested[key] = _build(StageConfig, value, f"{where}, [{key}]")
        elif key == "source" and isinstance(value, list):
            nested[key] = tuple(_build(SourceConfig, each, f"{where}, [[source]]") for each in value)
        else:
            nested[key] = value
    try:
        return kind(**nested)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}.") from None

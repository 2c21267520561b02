"""One configuration for a whole training run, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from runtime.errors import ProjectError

from ..config import PRESETS

KINDS = ("plain", "textured", "folder")
# Seeds of procedural objects that no run trains on: those of figures during a run, and those that results are of.
VALIDATION_SEED, MOST_VALIDATION, HELD_OUT_SEED = 800_000_000, 1_000_000, 900_000_000
STAGE_TABLES = ("teacher", "coarse", "detail", "joint")


class ConfigError(ProjectError, ValueError):
    """A key that does not exist, or a value out of range."""


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be at least {least} and whole, not {value!r}.")
    return value


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        steps: optimiser steps; 0 leaves the stage out.
        batch: objects per step.
        lr: learning rate after the warm-up; over the last fifth of the steps it falls to 0.
        points: supervised points per object.
        rays: supervised rays per object.
        samples: points on each ray.
    """

    steps: int
    batch: int
    lr: float
    points: int = 2048
    rays: int = 160
    samples: int = 48

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1), ("points", 0), ("rays", 0), ("samples", 1)):
            _whole(name, getattr(self, name), least)
        if not isinstance(self.lr, int | float) or not self.lr > 0:
            raise ConfigError(f"lr must be above 0, not {self.lr!r}.")


@dataclass(frozen=True)
class SourceConfig:
    """Where a share of the training objects comes from.

    Attributes:
        kind: "plain" or "textured" procedural objects, or "folder" for posed views on disk.
        share: of the objects in a batch, relative to the other sources'.
        objects: how many procedural ones.
        first_seed: seed of the first of them.
        path: folder of posed views.
        scale: multiplies their cameras' positions, to bring objects into the unit sphere.
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
        if not isinstance(self.share, int | float) or self.share <= 0:
            raise ConfigError(f"A source's share must be above 0, not {self.share!r}.")
        _whole("objects", self.objects, 1)
        _whole("first_seed", self.first_seed, 0)
        if self.first_seed < VALIDATION_SEED + MOST_VALIDATION and self.first_seed + self.objects > VALIDATION_SEED:
            raise ConfigError(f"Seeds from {VALIDATION_SEED} on are kept for validation: choose lower ones.")
        if self.first_seed + self.objects > HELD_OUT_SEED:
            raise ConfigError(f"Seeds from {HELD_OUT_SEED} on are held out: choose lower ones.")
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
        warmup: steps of linear warm-up.
        ema: decay of the averaged weights.
        clip: largest gradient norm.
        weight_decay: of both optimisers.
        precision: float32, bfloat16 or float16 for the networks' matrix products; float16 scales its losses.
        gradient_checkpointing: recomputes activations of the coarse generator to save memory.
        keep_targets: keeps the teacher's LL bands of every object in the run's folder, 0.4 MB an object of the small
            preset: a coarse step then takes a fifth less.
        save_every: steps between saved states.
        sample_every: steps between sample images.
        figures_every: minutes between figures on held-out objects; 0 for none.
        density_bias: density logit that the decoder starts from, nearly empty.
        teacher: the first stage.
        coarse: the second.
        detail: the third.
        joint: the last.
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
    keep_targets: bool = False
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
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"precision must be float32, bfloat16 or float16, not {self.precision!r}.")
        for name, least in (("save_every", 1), ("sample_every", 1), ("seed", 0), ("warmup", 0)):
            _whole(name, getattr(self, name), least)
        if self.resolution is not None and (_whole("resolution", self.resolution, 16) % 16):
            raise ConfigError(f"resolution must be a multiple of 16, not {self.resolution}.")
        if not isinstance(self.figures_every, int | float) or self.figures_every < 0:
            raise ConfigError(f"figures_every must be minutes, 0 or more, not {self.figures_every!r}.")
        for name in STAGE_TABLES:
            if not isinstance(getattr(self, name), StageConfig):
                raise ConfigError(f"{name} is a stage, a table: [{name}] with steps, batch and lr.")
        if not self.source or not all(isinstance(each, SourceConfig) for each in self.source):
            raise ConfigError("A run needs sources of objects, an array of tables: [[source]] with a kind.")
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
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a configuration ({error}).") from None
    return _build(TrainConfig, values, str(path))


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table, not {values!r}.")
    unknown = set(values) - known
    if unknown:
        raise ConfigError(f"{where} has unknown keys {sorted(unknown)}; there are {sorted(known)}.")
    nested: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key in STAGE_TABLES:
            nested[key] = _build(StageConfig, value, f"{where}, [{key}]")
        elif key == "source" and isinstance(value, list):
            nested[key] = tuple(_build(SourceConfig, each, f"{where}, [[source]]") for each in value)
        else:
            nested[key] = value
    try:
        return kind(**nested)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:  # A key that lacks, or a value of another type.
        raise ConfigError(f"{where}: a value is missing or of the wrong type ({error}).") from None

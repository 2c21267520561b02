"""The optimisation loop that every stage shares: schedule, averaging, checkpoints that resume, logs, a stop on NaN."""

from __future__ import annotations

import csv
import json
import resource
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from runtime.errors import ProjectError
from runtime.files import atomic_write

from .config import StageConfig, TrainConfig
from .optimizer import MuonAdamW

Losses = dict[str, Tensor]


# Of the log: a step may lack some, as points are where nothing is known of them.
_COLUMNS = ("step", "loss", "points", "iou", "rays", "size", "dense", "diffusion")
# Of losses in float16: what overflows below it is not a matter of the scale.
_LEAST_SCALE = 2.0**-10
# Share of a stage's steps over which the learning rate falls.
_FALL = 0.2


class TrainingError(ProjectError, RuntimeError):
    """Training cannot go on: the message names the stage and the step."""


def learning_rate(step: int, stage: StageConfig, warmup: int) -> float:
    """Linear warm-up over `warmup` steps, then constant, then linear to 0 over the stage's last fifth.

    Such a stage can be lengthened: between warm-up and fall no rate depends on where the end is (Hägele et al. 2024).
    """
    rise = min(1.0, (step + 1) / max(1, min(warmup, stage.steps // 4)))
    return stage.lr * rise * min(1.0, (stage.steps - step) / max(1.0, _FALL * stage.steps))


class StageLoop:
    """Optimises some parameters for a stage's number of steps.

    What happens at a step depends on the configuration and the step's number alone, so that a run that was killed and
    resumed ends with the same weights.

    Args:
        name: of the stage, for files and messages.
        config: the run's settings.
        stage: the stage's settings.
        folder: of the run; the state goes to `NAME.state`, the log to `NAME.csv`.
        parameters: what is optimised, in a fixed order.
        losses: computes a step's losses; "loss" is minimised, the rest is logged.
        matrices: those of the parameters that Muon takes.
        sample: called every `sample_every` steps with the averaged weights in place.
        figures: called every `figures_every` minutes with the number of steps done, averaged weights in place.
    """

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        stage: StageConfig,
        folder: Path,
        parameters: Sequence[nn.Parameter],
        losses: Callable[[int], Losses],
        matrices: Collection[nn.Parameter] = (),
        sample: Callable[[int], None] | None = None,
        figures: Callable[[int], None] | None = None,
    ) -> None:
        self.name, self.config, self.stage, self.losses = name, config, stage, losses
        self.sample, self.figures = sample, figures
        self.parameters = list(parameters)
        self.state_path, self.log_path = folder / f"{name}.state", folder / f"{name}.csv"
        self.optimizer = MuonAdamW(self.parameters, matrices, stage.lr, config.weight_decay)
        self.averages = [p.detach().clone() for p in self.parameters]
        # Small gradients would be 0 in float16: losses are scaled, and a step whose gradients overflow is left out.
        device = self.parameters[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=config.precision == "float16")
        self.taken = 0
        self.first_step = self._resume() if self.state_path.exists() else 0

    def run(self) -> dict[str, float]:
        """Runs to the end, leaves the averaged weights in the parameters, and returns objects per second and memory."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        started, recent = time.perf_counter(), {}
        due = started + 60 * self.config.figures_every
        with Progress(*columns, transient=True) as progress:
            task = progress.add_task(self.name, total=self.stage.steps, completed=self.first_step)
            for step in range(self.first_step, self.stage.steps):
                recent = self._step(step)
                progress.update(task, advance=1, description=f"{self.name} loss {recent['loss']:.4f}")
                done = step + 1
                if done % self.config.save_every == 0:
                    self._save(done)
                    self._log(done, recent)
                if self.sample is not None and done % self.config.sample_every == 0:
                    self._with_averages(self.sample, done)
                if self.figures is not None and self.config.figures_every and time.perf_counter() >= due:
                    self._with_averages(self.figures, done)
                    due = time.perf_counter() + 60 * self.config.figures_every
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                parameter.copy_(average)
        seconds = max(time.perf_counter() - started, 1e-9)
        return {
            "objects_per_second": (self.stage.steps - self.first_step) * self.stage.batch / seconds,
            "seconds": seconds,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            **{f"last_{name}": value for name, value in recent.items()},
        }

    def _step(self, step: int) -> dict[str, float]:
        losses = self.losses(step)
        if not torch.isfinite(losses["loss"]):
            raise TrainingError(f"Stage {self.name}, step {step}: the loss is {losses['loss'].item()}.")
        self.optimizer.zero_grad()
        self.scaler.scale(losses["loss"]).backward()
        self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        finite = bool(torch.isfinite(norm))
        if not finite and not self.scaler.is_enabled():
            raise TrainingError(f"Stage {self.name}, step {step}: the gradient's norm is {norm.item()}.")
        if not finite and self.scaler.get_scale() < _LEAST_SCALE:
            raise TrainingError(f"Stage {self.name}, step {step}: gradients overflow float16 whatever their scale.")
        self.taken += finite
        self.scaler.step(self.optimizer, learning_rate(step, self.stage, self.config.warmup))  # type: ignore[arg-type]
        self.scaler.update()
        # A young average follows quickly: the first weights are random.
        decay = min(self.config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _with_averages(self, call: Callable[[int], None], done: int) -> None:
        kept = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                parameter.copy_(average)
            call(done)
            for parameter, value in zip(self.parameters, kept, strict=True):
                parameter.copy_(value)

    def _log(self, done: int, values: dict[str, float]) -> None:
        fresh = not self.log_path.exists()
        with self.log_path.open("a", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, restval="")
            if fresh:
                writer.writeheader()
            writer.writerow({"step": done, **{name: f"{value:.6g}" for name, value in values.items()}})

    def _save(self, done: int) -> None:
        tensors: dict[str, Tensor] = {}
        for index, parameter in enumerate(self.parameters):
            tensors |= {f"weight.{index}": parameter, f"average.{index}": self.averages[index]}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with atomic_write(self.state_path) as partial:
            progress = {"done": done, "taken": self.taken, "scaler": self.scaler.state_dict()}
            save_file(contiguous, partial, metadata={name: json.dumps(value) for name, value in progress.items()})

    def _resume(self) -> int:
        with safe_open(self.state_path, framework="pt") as file:
            progress = {name: json.loads(value) for name, value in file.metadata().items()}
            done = progress["done"]
            self.taken = progress.get("taken", done)
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(progress["scaler"])
            with torch.no_grad():
                for index, parameter in enumerate(self.parameters):
                    parameter.copy_(file.get_tensor(f"weight.{index}"))
                    self.averages[index].copy_(file.get_tensor(f"average.{index}"))
            kept = [key for key in file.keys() if key.startswith("optimizer.")]  # noqa: SIM118
            self.optimizer.restore({key.removeprefix("optimizer."): file.get_tensor(key) for key in kept}, self.taken)
        return int(done)

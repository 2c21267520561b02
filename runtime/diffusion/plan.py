"""A sampling run: its table of steps, its noise, and the loop over its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .noise import draw
from .samplers import sampler_table, trailing_timesteps

State = TypeVar("State")


@dataclass(frozen=True)
class SamplingPlan:
    """What a sampling run needs beside the image.

    Attributes:
        table: (N, 7) float64, one row a step, columns as in `samplers.COLUMNS`.
        noise_shape: (3, 3C, R, R), of one item's details.
    """

    table: NDArray[np.float64]
    noise_shape: tuple[int, int, int, int]

    @classmethod
    def make(
        cls,
        sampler: str,
        steps: int,
        schedule: tuple[NDArray[np.float64], NDArray[np.float64]],
        channels: int,
        resolution: int,
    ) -> SamplingPlan:
        """Plans a run.

        Args:
            sampler: a name in `samplers.SAMPLERS`.
            steps: evaluations of the network, 1 to T.
            schedule: alpha and sigma, (T,) each.
            channels: of the triplane, C.
            resolution: side of the low-resolution planes, R.

        Raises:
            OptionError: an unknown sampler, or steps out of range.
        """
        table = sampler_table(sampler, *schedule, trailing_timesteps(len(schedule[0]), steps))
        return cls(table, (3, 3 * channels, resolution, resolution))

    @property
    def steps(self) -> int:
        """Evaluations of the network."""
        return len(self.table)

    @property
    def draws(self) -> int:
        """Samples of noise for each item: the initial state, and one a step where the sampler adds noise."""
        return 1 + self.steps if self.table[:, -1].any() else 1

    def noise(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Draws the noise of items, each from its own seed.

        Returns:
            (draws, B, 3, 3C, R, R) float32, the initial state first.
        """
        drawn = [draw(seed, self.noise_shape, self.draws) for seed in seeds]
        return drawn[0][:, None] if len(drawn) == 1 else np.stack(drawn, axis=1)


def run_sampler(
    rows: Iterable[Any], noise: Any, step: Callable[[State, State, State, Any], tuple[State, State]]
) -> State:
    """Runs the reverse diffusion; arrays may be NumPy's or PyTorch's.

    Args:
        rows: of a sampler table, float32.
        noise: (draws, ...), the initial state first.
        step: called with state, previous prediction, fresh noise and row; returns the next state and its prediction.

    Returns:
        The last state: standardised details.
    """
    # The first row has no use for a previous prediction: any finite values do.
    state = previous = noise[0]
    for index, row in enumerate(rows):
        state, previous = step(state, previous, noise[min(index + 1, len(noise) - 1)], row)
    return state

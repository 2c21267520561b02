"""The variance-preserving noise schedule: x_t = alpha(t) x_0 + sigma(t) noise, alpha^2 + sigma^2 = 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

_OFFSET = 0.008
_LARGEST_BETA = 0.999


def cosine_schedule(num_steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The cosine schedule of Nichol and Dhariwal 2021 (equation 17, betas capped at 0.999).

    Args:
        num_steps: length T of the training schedule, at least 2.

    Returns:
        alpha, sigma: (T,) float64, indexed by the timestep 0 .. T-1 (0 is almost clean, T-1 almost pure noise).
    """
    if num_steps < 2:
        raise OptionError(f"A noise schedule has at least 2 timesteps, not {num_steps}.", "The usual length is 1000.")

    def remaining(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.cos((t / num_steps + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2

    t = np.arange(num_steps, dtype=np.float64)
    betas = np.minimum(1 - remaining(t + 1) / remaining(t), _LARGEST_BETA)
    squared = np.cumprod(1 - betas)
    return np.sqrt(squared), np.sqrt(1 - squared)

"""A sampler is a table: one row a step, known before the loop starts.

Every sampler here computes `x_next = a x + b x0 + c x0_previous + d noise`, where x0 is what the network predicts at
this row's timestep and x0_previous what it predicted at the row before. The coefficients depend on the step alone, so
that one network graph serves every sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..arguments import whole_number
from ..errors import OptionError

COLUMNS = ("timestep", "alpha", "sigma", "a", "b", "c", "d")

Array = NDArray[np.float64]


def trailing_timesteps(num_train_steps: int, steps: int) -> NDArray[np.int64]:
    """`steps` timesteps from T-1 downwards, evenly spaced (the "trailing" spacing of Lin et al. 2024, table 2)."""
    steps = whole_number("steps", steps, 1, num_train_steps, "Leave it out for the bundle's default.")
    return np.round(np.arange(num_train_steps, 0, -num_train_steps / steps)).astype(np.int64)[:steps] - 1


def sampler_table(sampler: str, alpha: Array, sigma: Array, timesteps: Sequence[int] | NDArray[np.int64]) -> Array:
    """The coefficients of a whole sampling run.

    Args:
        sampler: one of `SAMPLERS`.
        alpha: (T,) float64, the signal's share at each timestep.
        sigma: (T,) float64, the noise's share.
        timesteps: N decreasing indices into the schedule; the run ends on the clean signal.

    Returns:
        (N, 7) float64, columns as in `COLUMNS`.

    Raises:
        OptionError: an unknown sampler, or timesteps that do not decrease or leave the schedule.
    """
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise OptionError(
            f"Unknown sampler {sampler!r}; there are {', '.join(SAMPLERS)}.",
            "Leave it out for the bundle's default.",
        )
    t = np.asarray(timesteps, np.int64)
    if t.ndim != 1 or t.size == 0 or t[0] >= len(alpha) or t[-1] < 0 or (np.diff(t) >= 0).any():
        raise OptionError(
            f"Timesteps must decrease strictly within 0 .. {len(alpha) - 1}, not {t.tolist()}.",
            "trailing_timesteps(num_train_steps, steps) makes such a list.",
        )
    # The end of the run is the clean signal: alpha 1, sigma 0.
    coefficients = SAMPLERS[sampler](np.append(alpha[t], 1.0), np.append(sigma[t], 0.0))
    return np.column_stack([t, alpha[t], sigma[t], *coefficients])


def _ddim(alpha: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
    """Song et al. 2021 (DDIM), equation 12 with eta = 0, written for a prediction of x0."""
    a = sigma[1:] / sigma[:-1]
    b = alpha[1:] - a * alpha[:-1]
    return a, b, np.zeros_like(a), np.zeros_like(a)


def _euler(alpha: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
    """Karras et al. 2022, algorithm 1 without churn, in y = x / alpha, whose noise level is s = sigma / alpha.

    y_next = y + (s_next - s) (y - x0) / s. In exact arithmetic this is DDIM on the same timesteps.
    """
    level = sigma / alpha
    ratio = level[1:] / level[:-1]
    a = ratio * alpha[1:] / alpha[:-1]
    b = (1 - ratio) * alpha[1:]
    return a, b, np.zeros_like(a), np.zeros_like(a)


def _ddpm(alpha: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
    """Ancestral sampling: DDIM's equation 16 with eta = 1. The only sampler here that draws noise at every step."""
    ratio = alpha[:-1] / alpha[1:]
    fresh = sigma[1:] / sigma[:-1] * np.sqrt(np.maximum(1 - ratio**2, 0.0))
    a = np.sqrt(np.maximum(sigma[1:] ** 2 - fresh**2, 0.0)) / sigma[:-1]
    b = alpha[1:] - a * alpha[:-1]
    return a, b, np.zeros_like(a), fresh


def _dpmpp_2m(alpha: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2 (2M), midpoint form; the first and last steps are first order."""
    steps = len(alpha) - 1
    half_log_snr = np.log(alpha[:-1]) - np.log(sigma[:-1])
    a = sigma[1:] / sigma[:-1]
    # alpha_next (1 - exp(-h)) without forming h, which is infinite at the clean end.
    first_order = alpha[1:] - a * alpha[:-1]
    b, c = first_order.copy(), np.zeros(steps)
    for i in range(1, steps - 1):
        h_last, h = half_log_snr[i] - half_log_snr[i - 1], half_log_snr[i + 1] - half_log_snr[i]
        correction = first_order[i] * h / (2 * h_last)
        b[i] += correction
        c[i] = -correction
    return a, b, c, np.zeros(steps)


SAMPLERS: dict[str, Callable[[Array, Array], tuple[Array, Array, Array, Array]]] = {
    "ddim": _ddim,
    "dpmpp_2m": _dpmpp_2m,
    "euler": _euler,
    "ddpm": _ddpm,
}

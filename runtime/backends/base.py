"""What a backend does for the runtime."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..rendering.field import Field

Array = NDArray[np.float32]


class Backend(Protocol):
    """Runs a bundle's graphs somewhere. Safe to be called from several threads at once.

    Attributes:
        name: "cpu", "openvino", "cuda" or "tensorrt".
        reason: in words, why this one was taken.
        workers: threads on which fields may be asked side by side; None where one after another is best.
        threads: how many of them.
        largest_group: items that `triplanes` is best given at once.
    """

    name: str
    reason: str
    workers: Executor | None
    threads: int
    largest_group: int

    def triplanes(self, images: Array, noise: Array, table: NDArray[np.float64]) -> Array:
        """All of `generate`, and the inverse wavelet transform.

        Returns:
            (B, 3, C, 2R, 2R) float32.
        """
        ...

    def generate(self, images: Array, noise: Array, table: NDArray[np.float64]) -> tuple[Array, Array]:
        """Coarse stage and sampling loop.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            noise: (1 + draws, B, 3, 3C, R, R), the initial state first, then one draw a step where the table has a d.
            table: (N, 7), from `sampler.sampler_table`.

        Returns:
            LL (B, 3, C, R, R), and standardised details (B, 3, 3C, R, R).
        """
        ...

    def field(self, triplane: Array) -> Field:
        """Readies a triplane (3, C, H, W): what is returned gives colour (N, 3) and density (N,) at points (N, 3)."""
        ...

    def close(self) -> None:
        """Gives back what it holds."""
        ...

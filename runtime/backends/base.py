"""What a backend does for the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple, Protocol

from ..array_types import Array
from ..diffusion.plan import SamplingPlan
from ..rendering.field import Field


class Planes(NamedTuple):
    """One reconstructed triplane.

    Attributes:
        values: (3, C, 2R, 2R) float32, its own memory.
        key: names the copy that a device keeps of it, for `Backend.field`; None where there is none.
    """

    values: Array
    key: int | None = None


class Backend(Protocol):
    """Runs a bundle's graphs somewhere. Safe to be called from several threads at once.

    Attributes:
        name: "cpu", "openvino", "cuda" or "tensorrt".
        workers: threads on which fields may be queried side by side; None where one after another is best.
        threads: how many of them.
        largest_group: items that `triplanes` is best given at once.
    """

    name: str
    workers: Executor | None
    threads: int
    largest_group: int

    def triplanes(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> list[Planes]:
        """Runs the coarse stage, the sampling loop and the inverse wavelet transform.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            plan: sampler table and shape of the noise.
            seeds: B of them; an item's noise depends on its seed alone.

        Raises:
            BackendError: a graph failed, or gave NaN or infinity.
            ClosedError: `close` was called.
        """
        ...

    def generate(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> tuple[Array, Array]:
        """Runs `triplanes` up to the bands.

        Returns:
            LL (B, 3, C, R, R), and standardised details (B, 3, 3C, R, R).
        """
        ...

    def field(self, triplane: Array, key: int | None = None) -> Field:
        """Prepares a triplane for queries.

        Args:
            triplane: (3, C, H, W).
            key: of its `Planes`, where it comes from this backend.

        Returns:
            A function of points (N, 3) to colour (N, 3) and density (N,).
        """
        ...

    def close(self) -> None:
        """Releases memory, threads and devices."""
        ...

"""The diffusion's noise: float32 normals that depend on the item's seed alone, the same on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..arguments import whole_number
from ..array_types import Array
from ..errors import OptionError


def seeds_of(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed an item: an int serves all of them, a sequence has one each.

    Raises:
        OptionError: a seed that is not a whole number >= 0, or another number of seeds than items.
    """
    several = isinstance(seed, Sequence | np.ndarray) and np.ndim(seed) == 1
    seeds: list[Any] = list(seed) if several else [seed] * count  # type: ignore[arg-type]
    if len(seeds) != count:
        raise OptionError(f"There are {len(seeds)} seeds for {count} images.", "Give one seed, or one for each image.")
    return [whole_number("A seed", value, 0, remedy="The default is 0.") for value in seeds]


def draw(seed: int, shape: tuple[int, ...], draws: int = 1) -> Array:
    """`draws` successive samples of `shape` from Philox.

    A longer run starts with the numbers of a shorter one, so the initial noise does not depend on the sampler.

    Returns:
        (draws, *shape) float32; read-only where it is a single draw, because that one is kept and shared.
    """
    return _initial(seed, shape) if draws == 1 else _normals(seed, (draws, *shape))


@lru_cache(maxsize=16)
def _initial(seed: int, shape: tuple[int, ...]) -> Array:
    noise = _normals(seed, (1, *shape))
    noise.setflags(write=False)
    return noise


def _normals(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)

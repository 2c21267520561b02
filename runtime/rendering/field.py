"""What can be drawn: a field that is asked for colour and density at points, or that draws rays itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from ..geometry.rays import Rays

# Points (N, 3) to colour (N, 3) in [0, 1] and density (N,) per scene unit.
Field = Callable[[Array], tuple[Array, Array]]
# Three arrays (K,) of indices into the coordinates of a lattice.
LatticeIndex = Sequence[NDArray[np.integer]]


@runtime_checkable
class DrawingField(Protocol):
    """A field that draws every sample of rays itself, where that takes less than finding out which are worth it.

    Attributes:
        most_samples: of a ray that it draws.
    """

    most_samples: int

    def __call__(self, points: Array) -> tuple[Array, Array]: ...

    def draw(self, rays: Rays, num_samples: int) -> tuple[Array, Array, Array]:
        """As `march` does, without a grid."""
        ...

"""An occupancy grid of a density field, built once a scene, so that drawing can skip what is empty.

cell: two texels wide, known by its middle         octant: an eighth of a cell, one texel wide
+-----+-----+                                      EMPTY    nothing to see: no query, no colour
|  o  |  o  |   o  queried middles                 1..254   low density: interpolated from the middles
+-----+-----+                                      SOLID    the field itself is queried
|  o  |  o  |
+-----+-----+
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from .departures import dilated, unforeseen_changes
from .field import Field, LatticeIndex
from .parallel import WorkerPool

# Candidates for the largest density, per scene unit, that is interpolated instead of queried. That error adds up along
# a ray, so the limit may be higher where a ray meets less low density (docs/decisions.md).
_LOW_DENSITY = (0.2, 0.15, 0.11, 0.08, 0.06, 0.045)
_MOST_LOW_DENSITY = 0.045
# Through the whole cube this is a third of a step of 8 bits, and it is seldom everywhere.
_NOTHING = 5e-4
# Larger distances are not counted: a block of samples longer than that is tested sample by sample.
_FARTHEST_EMPTY_DISTANCE = 8
# A softplus of less is as good as 0: what is outside is bounded, so that a surface is interpolated well.
OUTSIDE_LOGIT = -15.0
# Of less logit there is nothing to see, at any density scale that a model has.
NOTHING_LOGIT = -10.0
# Of `OccupancyGrid.octants`.
EMPTY, SOLID = 0, 255


@dataclass(frozen=True)
class OccupancyGrid:
    """Density and colour in each of N^3 cells of the cube [-1, 1]^3, and the state of the eight octants of each.

    Attributes:
        logit: (N^3,) float32, of the density at the middle of each cell, x slowest, z fastest.
        colors: (N^3,) items of three float32, RGB there; NumPy reads an item at once.
        maybe_surface: (N^3,) bool, True where the surface may pass through a cell whatever its middle says.
        empty_distance: (N^3,) uint8, cells to the nearest one that is not empty: 0 for such a cell, 8 at most.
        octants: ((2N)^3,) uint8: EMPTY, SOLID, or an index into `densities`.
        densities: (256,) float32, 0 for EMPTY and SOLID.
        density_scale: density = density_scale * softplus(logit).
        resolution: N.
        surface_logit: where meshes are cut.
    """

    logit: Array
    colors: NDArray[np.void]
    maybe_surface: NDArray[np.bool_]
    empty_distance: NDArray[np.uint8]
    octants: NDArray[np.uint8]
    densities: Array
    density_scale: float
    resolution: int
    surface_logit: float

    @classmethod
    def of(
        cls,
        field: Field,
        triplane: Array,
        density_scale: float,
        sensitivity: Sequence[float],
        pool: WorkerPool,
        surface_logit: float = 0.0,
    ) -> OccupancyGrid:
        """Builds a grid: queries the middles of cells, and bounds from the planes what the middles miss.

        Args:
            field: points (N, 3) to colour (N, 3) and density (N,) = density_scale * softplus(logit).
            triplane: (3, C, H, W), what the field reads; H = W, a multiple of 4.
            density_scale: from the bundle.
            sensitivity: for each plane an estimate of how much the logit changes with its features (Euclidean norm):
                the bundle's, which was measured on objects.
            pool: worker pool that queries the field.
            surface_logit: where meshes are cut.
        """
        resolution = triplane.shape[-1] // 2
        shift, rise = unforeseen_changes(triplane, sensitivity, pool.map)
        rgb, density = _look(field, np.arange((resolution // 2) ** 3), resolution // 2, pool)
        logit = to_logit(density, density_scale)
        nothing, low_density = (
            float(to_logit(limit, density_scale)) for limit in (_NOTHING, _low_density_limit(density))
        )
        # Querying twice as coarsely finds most of what is empty, at an eighth of the cost.
        cells = np.flatnonzero(_per_octant(logit, np.maximum) + shift + rise > low_density)
        colors, logit = _split(_items(rgb), resolution // 2), _per_octant(logit, _closer)
        logit /= 64
        rgb, density = _look(field, cells, resolution, pool)
        colors[cells], logit[cells] = _items(rgb), to_logit(density, density_scale)
        level = (low_density - nothing) / (SOLID - 1)
        # 511 times 64 stays within 16 bits, which are several times as fast as 32.
        levels: Array = np.clip(np.rint((logit - np.float32(nothing)) / np.float32(level)), -511, 511)
        between = _per_octant(levels.astype(np.int16), _closer)
        between >>= 6
        octants = np.clip(between, EMPTY, SOLID - 1, out=between).astype(np.uint8)
        octants |= _per_octant(logit + rise > low_density, np.logical_or).view(np.uint8) * np.uint8(SOLID)
        densities = density_scale * np.logaddexp(0, nothing + level * np.arange(256)).astype(np.float32)
        densities[[EMPTY, SOLID]] = 0
        empty_distance = _empty_distance(octants == EMPTY, resolution)
        unsure = np.abs(logit - np.float32(surface_logit)) <= rise
        return cls(logit, colors, unsure, empty_distance, octants, densities, density_scale, resolution, surface_logit)

    def refined(self, field: Field, pool: WorkerPool) -> OccupancyGrid:
        """Returns a grid with fewer solid octants, after querying the middle of each that may not be solid.

        Middles of octants are a texel apart, and between texels a field is interpolated: only an octant beside one
        above low density stays solid. Low density of single texels is found only where it is sampled as finely.
        """
        side, levels = 2 * self.resolution, self.densities[EMPTY + 1 : SOLID]
        # Where everything around is above low density there is nothing to be gained.
        above = _per_octant(self.logit > to_logit(levels[-1], self.density_scale), np.logical_and)
        asked = np.flatnonzero((self.octants == SOLID) & ~above)
        _, density = _look(field, asked, side, pool)
        above[asked] = density > levels[-1]
        near = dilated(above.reshape((side,) * 3)).reshape(-1)[asked]
        octants = self.octants.copy()
        octants[asked] = np.where(near, SOLID, np.searchsorted(levels, density).clip(EMPTY, SOLID - 1))
        return replace(self, octants=octants)

    def scaled(self, factor: Array, least: Array, most: Array) -> OccupancyGrid:
        """Returns the grid of the same field with its density multiplied by factors.

        A cell that only factors of 0 reach is empty, and one that only factors of 1 reach stays as it is. Elsewhere
        what is not empty is queried.

        Args:
            factor: (N^3,) in the middle of each cell.
            least: (N^3,) the smallest in each cell.
            most: (N^3,) the largest in each cell.
        """
        gone, same = most <= 0, (least == 1) & (most == 1)
        octants = self.octants.copy()
        octants[_split(~same, self.resolution) & (octants != EMPTY)] = SOLID
        octants[_split(gone, self.resolution)] = EMPTY
        density = np.float32(self.density_scale) * np.logaddexp(0, self.logit) * factor
        return replace(
            self,
            logit=np.where(same, self.logit, to_logit(density, self.density_scale)),
            maybe_surface=~gone & (self.maybe_surface | (~same & (self.empty_distance == 0))),
            empty_distance=_empty_distance(octants == EMPTY, self.resolution),
            octants=octants,
        )

    def octants_at(self, origin: Array, directions: Array, distances: Array) -> NDArray[np.intp]:
        """Returns the index (S, R) of each sample's octant: origin (3,), directions (3, R), distances (S, R)."""
        return _places(origin, directions, distances, 2 * self.resolution)

    def cells_at(self, origin: Array, directions: Array, distances: Array) -> NDArray[np.intp]:
        """Returns the index (S, R) of each sample's cell."""
        return _places(origin, directions, distances, self.resolution)

    def colors_at(self, octants: NDArray[np.intp]) -> Array:
        """Returns RGB (K, 3) in the middle of the cells that these octants (K,) belong to."""
        # Quotients of 32 bits by one number are several times as fast as of 64, or as `divmod`.
        side, found = np.int32(2 * self.resolution), octants.astype(np.int32)
        row, x = found // side, found // side**2
        y, z = row - x * side, found - row * side
        cells = ((x >> 1) * np.int32(self.resolution) + (y >> 1)) * np.int32(self.resolution) + (z >> 1)
        return self.colors[cells].view(np.float32).reshape(-1, 3)


def _places(origin: Array, directions: Array, distances: Array, side: int) -> NDArray[np.intp]:
    """Returns the index (S, R) of each sample's part, of side^3 equal parts of the cube."""
    half = np.float32(side / 2)
    places = distances * (half * directions)[:, None]
    places += (half * (origin + 1))[:, None, None]
    np.clip(places, 0, side - 1, out=places)
    # Of 32 bits, which are several times as fast as 64, and enough for a thousand texels a side.
    axes = places.astype(np.int32)
    found = axes[0]
    for axis in axes[1:]:
        found *= side
        found += axis
    return found.astype(np.intp)


def on_lattice(field: Field, axis: Array) -> Callable[[LatticeIndex], tuple[Array, Array]]:
    """A field at points of a lattice, given by three arrays (K,) of indices into `axis` (n,).

    A field may have a method `lattice`, made for that; any other is asked point by point.
    """
    if hasattr(field, "lattice"):
        found: Callable[[LatticeIndex], tuple[Array, Array]] = field.lattice(axis)
        return found
    return lambda index: field(np.stack([axis[i] for i in index], axis=-1))


def to_logit(density: Array | float, density_scale: float) -> Array:
    """The inverse of density_scale * softplus(logit), at least -15."""
    value = np.asarray(density, np.float32) / np.float32(density_scale)
    # log(exp(v) - 1); a large v is its own inverse.
    small = np.log(np.expm1(np.clip(value, np.exp(OUTSIDE_LOGIT), 20)))
    return np.where(value > 20, value, small).astype(np.float32)


def _low_density_limit(density: Array) -> float:
    """Returns the largest limit at which no row of cells holds more low density than is allowed.

    Args:
        density: (n^3,), in the middle of each cell.
    """
    side = round(len(density) ** (1 / 3))
    cube = density.reshape((side,) * 3)
    for limit in _LOW_DENSITY[:-1]:
        thin = np.where(cube < limit, cube, 0)
        if max(thin.sum(axis).max() for axis in range(3)) * 2 / side <= _MOST_LOW_DENSITY:
            return limit
    return _LOW_DENSITY[-1]


def _look(field: Field, cells: NDArray[np.integer], resolution: int, pool: WorkerPool) -> tuple[Array, Array]:
    """Colour (K, 3) and density (K,) in the middle of some of resolution^3 cells."""
    axis = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / resolution) - 1
    rgb, density = np.empty((len(cells), 3), np.float32), np.empty(len(cells), np.float32)

    ask = on_lattice(field, axis)

    def look(part: slice) -> None:
        rgb[part], density[part] = ask(np.unravel_index(cells[part], (resolution,) * 3))

    # Smaller octants than an image's: all of these points are asked, and stay in a core's cache.
    pool.run(look, len(cells), 8)
    return rgb, density


def _items(rgb: Array) -> NDArray[np.void]:
    """Colours (K, 3) as items (K,) of three numbers, which NumPy moves at once."""
    items: NDArray[np.void] = rgb.view("V12")[:, 0]
    return items


def _split(values: NDArray[Any], resolution: int) -> NDArray[Any]:
    """Repeats values of resolution^3 cells for the eight octants of every cell."""
    cube = values.reshape((resolution,) * 3)
    for axis in (2, 1, 0):
        cube = cube.repeat(2, axis=axis)
    return cube.reshape(-1)


def _per_octant(values: NDArray[Any], join: Callable[..., Any]) -> NDArray[Any]:
    """Joins the cells whose middles surround each octant: (N^3,) to ((2N)^3,).

    A part lies between the middles of its own cell and those beside it on its side: two along each axis. Outside the
    cube the border continues.

    Args:
        values: of the cells.
        join: as a ufunc of two arguments: what is in the part's own cell, and what is in the one beside it.
    """
    side = round(len(values) ** (1 / 3))
    cube = values.reshape(side, side, side)
    for axis in (2, 1, 0):
        moved = np.moveaxis(cube, axis, 0)
        cube = np.empty([n * 2 if a == axis else n for a, n in enumerate(cube.shape)], values.dtype)
        into = np.moveaxis(cube, axis, 0)
        join(moved[1:], moved[:-1], out=into[2::2])
        join(moved[:-1], moved[1:], out=into[1:-1:2])
        for end in (slice(None, 1), slice(-1, None)):
            join(moved[end], moved[end], out=into[end])
    return cube.reshape(-1)


def _closer(own: NDArray[Any], beside: NDArray[Any], out: NDArray[Any]) -> None:
    """For `_per_octant`: trilinear interpolation in the middle of each octant, times 4 for each axis, 64 in all."""
    np.multiply(own, 3, out=out)
    out += beside


def _empty_distance(empty: NDArray[np.bool_], resolution: int) -> NDArray[np.uint8]:
    """(N^3,) as `OccupancyGrid` has it, of ((2N)^3,) octants."""
    # Two octants along z are read as one number.
    free = empty.reshape((2 * resolution,) * 3).view(np.uint16)
    free = free[0::2] & free[1::2]
    # One cell more along y and z, kept empty: neighbours along any axis are then so many places away, whole.
    side = resolution + 1
    occupied = np.zeros((resolution, side, side), bool)
    np.not_equal(free[:, 0::2] & free[:, 1::2], 0x0101, out=occupied[:, :-1, :-1])
    empty_distance, row = np.zeros(occupied.shape, np.uint8), occupied.reshape(-1)
    for _ in range(_FARTHEST_EMPTY_DISTANCE):
        empty_distance += ~occupied
        for step in (1, side, side * side):
            before = row.copy()
            row[step:] |= before[:-step]
            row[:-step] |= before[step:]
            occupied[:, -1] = occupied[:, :, -1] = False
    return empty_distance[:, :-1, :-1].reshape(-1)

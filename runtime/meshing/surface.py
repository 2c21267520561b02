"""Cutting an object's surface out of its density field."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from ..errors import OptionError, install_hint
from ..rendering.field import Field
from ..rendering.occupancy import OUTSIDE_LOGIT, OccupancyGrid, on_lattice, to_logit
from ..rendering.parallel import WorkerPool
from ..rendering.projection import Projection
from .cleaning import decimated, smoothed, without_crumbs
from .mesh import Mesh, vertex_normals
from .texture import baked


def extract_mesh(
    field: Field,
    grid: OccupancyGrid,
    resolution: int,
    density_scale: float,
    pool: WorkerPool,
    projection: Projection | None = None,
    clean: bool = True,
    faces: int | None = None,
    texture: int | None = None,
) -> Mesh:
    """Marching cubes (Lewiner et al. 2003, as scikit-image has it) on the density's logit, where the grid says.

    Args:
        field: points (N, 3) to colour (N, 3) and density (N,) = density_scale * softplus(logit).
        grid: a coarse look at the field.
        resolution: samples along each axis of the cube, at least 8.
        density_scale: from the bundle.
        pool: worker pool that queries the field.
        projection: of the input image, whose colours vertices take where it shows them; None for the field's alone.
        clean: drops crumbs and takes the ripple of texels out.
        faces: triangles at the most; None for as many as there are.
        texture: side of a texture in texels; None for colours at vertices alone.

    Raises:
        OptionError: scikit-image or fast-simplification is not installed, there is no surface, or no room in the
            texture.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise OptionError("Cutting a mesh needs scikit-image, which is not installed.", install_hint("mesh")) from None
    # A layer of outside around the cube closes what would be cut off at its faces.
    logits = _lattice(field, grid, resolution, density_scale, pool)
    if logits.max() <= 0:
        raise OptionError("The object has no surface: its density is nowhere that of a solid.", "Try another image.")
    spacing = 2 / (resolution - 1)
    found, triangles, _, _ = marching_cubes(logits, 0.0, spacing=(spacing,) * 3, gradient_direction="ascent")
    vertices, triangles = np.clip(found - spacing - 1, -1, 1).astype(np.float32), triangles.astype(np.int64)
    if clean:
        vertices, triangles = without_crumbs(vertices, triangles)
        vertices = smoothed(vertices, triangles)
    if faces is not None:
        vertices, triangles = decimated(vertices, triangles, faces)
    normals, shade = vertex_normals(vertices, triangles), _shader(field, pool, projection)
    image = None if texture is None else baked(vertices, triangles, normals, texture, shade)
    return Mesh(vertices, triangles, shade(vertices, normals), image)


def _shader(field: Field, pool: WorkerPool, projection: Projection | None) -> Callable[[Array, Array], Array]:
    """Returns what colours points (N, 3) with unit normals (N, 3): the field and the image."""

    def shade(points: Array, normals: Array) -> Array:
        colors = np.empty_like(points)

        def paint(part: slice) -> None:
            colors[part] = np.clip(field(points[part])[0], 0, 1)
            if projection is not None:
                colors[part] = projection.paint(points[part], normals[part], colors[part])

        pool.run(paint, len(points))
        return colors

    return shade


def _lattice(field: Field, grid: OccupancyGrid, resolution: int, density_scale: float, pool: WorkerPool) -> Array:
    """The logit, less that of the surface, on a lattice of resolution^3 points over the cube, in a layer of outside.

    The field is asked at the corners of every lattice cube that the surface passes through, and where the grid is
    unsure; elsewhere the value is that of the grid, whose sign is all that counts. What is found may show that the
    surface goes on into a cube beside it: that is asked next, until nothing new turns up.
    """
    axis = np.linspace(-1, 1, resolution, dtype=np.float32)
    nearest = np.clip((axis + 1) * np.float32(grid.resolution / 2), 0, grid.resolution - 1).astype(np.int32)
    near = np.ix_(nearest, nearest, nearest)
    logits = np.full((resolution + 2,) * 3, OUTSIDE_LOGIT, np.float32)
    asked = np.ones(logits.shape, bool)
    inner = (slice(1, -1),) * 3
    logits[inner] = grid.logit.reshape((grid.resolution,) * 3)[near] - np.float32(grid.surface_logit)
    asked[inner] = False
    wanted = np.zeros(logits.shape, bool)
    wanted[inner] = grid.maybe_surface.reshape((grid.resolution,) * 3)[near]
    ask, flat = on_lattice(field, axis), logits.reshape(-1)
    while True:
        fresh = np.flatnonzero((wanted | _corners_of_crossed(logits > 0)) & ~asked)
        if not fresh.size:
            return logits

        def look(part: slice, fresh: NDArray[np.integer] = fresh) -> None:
            index = [i - 1 for i in np.unravel_index(fresh[part], logits.shape)]
            flat[fresh[part]] = to_logit(ask(index)[1], density_scale) - np.float32(grid.surface_logit)

        pool.run(look, len(fresh))
        asked.reshape(-1)[fresh] = True


def _corners_of_crossed(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points of a lattice belong to a cube with corners on both sides."""
    some, every = inside, inside
    for axis in range(3):
        some, every = (np.moveaxis(a, axis, 0) for a in (some, every))
        some, every = (np.moveaxis(a, 0, axis) for a in (some[1:] | some[:-1], every[1:] & every[:-1]))
    crossed = some & ~every
    for axis in range(3):
        wide = np.pad(crossed, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        moved = np.moveaxis(wide, axis, 0)
        crossed = np.moveaxis(moved[1:] | moved[:-1], 0, axis)
    return crossed

"""Cutting an object's surface out of its density field, and writing it where other tools can read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .array_record import ArrayRecord
from .errors import OptionError, install_hint
from .files import atomic_write
from .outputs import MARK
from .rendering.field import Field
from .rendering.occupancy import OUTSIDE_LOGIT, OccupancyGrid, on_lattice, to_logit
from .rendering.parallel import WorkerPool
from .rendering.projection import Projection

Array = NDArray[np.float32]
FORMATS = (".glb", ".ply", ".obj", ".stl")
# Parts of less volume than this share of the largest are dropped.
_CRUMB = 0.01
# Steps of smoothing, forward and back by turns.
_SMOOTHING = (0.5, -0.53) * 6


@dataclass(frozen=True, eq=False)
class Mesh(ArrayRecord):
    """A closed triangle mesh in the scene's frame: y up, counter-clockwise triangles seen from outside.

    Attributes:
        vertices: (V, 3) float32, scene units.
        faces: (F, 3) int64 indices.
        colors: (V, 3) float32 in [0, 1], as the images have them (sRGB).
    """

    vertices: Array
    faces: NDArray[np.int64]
    colors: Array

    def save(self, path: str | Path) -> None:
        """Writes .glb (with a material, colours linear as glTF wants them), .ply, .obj or .stl, by the path's ending.

        Raises:
            OptionError: another ending, or trimesh is not installed.
        """
        target = Path(path)
        if target.suffix.lower() not in FORMATS:
            raise OptionError(f"A mesh cannot be written as {target.suffix or target.name!r}.", f"Use {FORMATS}.")
        try:
            import trimesh
        except ImportError:
            raise OptionError("Writing a mesh needs trimesh, which is not installed.", install_hint("mesh")) from None
        kind = target.suffix.lower()[1:]
        colors = _linear(self.colors) if kind == "glb" else self.colors
        rgba = np.round(np.column_stack([colors, np.ones(len(colors))]) * 255).astype(np.uint8)
        mesh = trimesh.Trimesh(self.vertices, self.faces, vertex_colors=rgba, process=False)
        options: dict[str, Any] = {"tree_postprocessor": _add_material} if kind == "glb" else {}
        data: Any = (
            trimesh.Scene(mesh).export(file_type="glb", **options) if kind == "glb" else mesh.export(file_type=kind)
        )
        with atomic_write(target) as partial:
            partial.write_bytes(data.encode() if isinstance(data, str) else data)


def extract_mesh(
    field: Field,
    grid: OccupancyGrid,
    resolution: int,
    density_scale: float,
    pool: WorkerPool,
    projection: Projection | None = None,
    clean: bool = True,
) -> Mesh:
    """Marching cubes (Lewiner et al. 2003, as scikit-image has it) on the density's logit at 0.

    Args:
        field: points (N, 3) to colour (N, 3) and density (N,) = density_scale * softplus(logit).
        grid: a coarse look at the field.
        resolution: samples along each axis of the cube, at least 8.
        density_scale: from the bundle.
        pool: worker pool that queries the field.
        projection: of the input image, whose colours vertices take where it shows them; None for the field's alone.
        clean: drops crumbs and takes the ripple of texels out.

    Raises:
        OptionError: scikit-image is not installed, or there is no surface.
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
    found, faces, _, _ = marching_cubes(logits, 0.0, spacing=(spacing,) * 3, gradient_direction="ascent")
    vertices, faces = np.clip(found - spacing - 1, -1, 1).astype(np.float32), faces.astype(np.int64)
    if clean:
        vertices, faces = without_crumbs(vertices, faces)
        vertices = smoothed(vertices, faces)
    colors = np.empty_like(vertices)

    def paint(part: slice) -> None:
        colors[part] = np.clip(field(vertices[part])[0], 0, 1)

    pool.run(paint, len(vertices))
    if projection is not None:
        colors = projection.paint(vertices, vertex_normals(vertices, faces), colors)
    return Mesh(vertices, faces, colors)


def without_crumbs(vertices: Array, faces: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Drops closed parts that enclose less than a hundredth of the largest one's volume.

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices, of closed surfaces.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(vertices)
    edges = coo_array((np.ones(2 * len(faces), bool), (faces[:, :2].ravel(), faces[:, 1:].ravel())), (count, count))
    _, part = connected_components(edges, directed=False)
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    # Signed tetrahedra with the origin add up to the volume of a closed part; a hollow's is below 0.
    volumes = np.bincount(part[faces[:, 0]], np.einsum("fi,fi->f", a, np.cross(b, c)) / 6)
    kept = np.abs(volumes) >= _CRUMB * np.abs(volumes).max()
    faces = faces[kept[part[faces[:, 0]]]]
    used = np.unique(faces)
    renumbered = np.full(count, -1, np.int64)
    renumbered[used] = np.arange(len(used))
    return vertices[used], renumbered[faces]


def smoothed(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Takes the ripple of texels out of a surface (Taubin 1995: each step back undoes the shrinking of the one before).

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices, of closed surfaces.
    """
    from scipy.sparse import csr_array

    count = len(vertices)
    edges = (faces.ravel(), faces[:, [1, 2, 0]].ravel())
    # Of a closed surface every edge belongs to two faces, and is here once in each direction.
    neighbours = csr_array((np.ones(3 * len(faces), np.float32), edges), (count, count))
    number = np.maximum(neighbours.sum(axis=1), 1).astype(np.float32)[:, None]
    result = vertices
    for factor in _SMOOTHING:
        result = result + np.float32(factor) * (neighbours @ result / number - result)
    return np.clip(result, -1, 1)


def vertex_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Unit normals (V, 3), outward, of faces weighted by their area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    summed = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            summed[:, axis] += np.bincount(faces[:, corner], normals[:, axis], len(vertices))
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


def _lattice(field: Field, grid: OccupancyGrid, resolution: int, density_scale: float, pool: WorkerPool) -> Array:
    """The logit on a lattice of resolution^3 points over the cube, in a layer of outside.

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
    logits[inner] = grid.logit.reshape((grid.resolution,) * 3)[near]
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
            flat[fresh[part]] = to_logit(ask(index)[1], density_scale)

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


def _linear(srgb: Array) -> Array:
    """IEC 61966-2-1: display colours to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _add_material(tree: dict[str, Any]) -> None:
    """Gives every primitive a matt white material, which viewers multiply with the vertex colours."""
    surface = {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["asset"]["generator"] = MARK
    tree["materials"] = [{"name": "vertex colours", "pbrMetallicRoughness": surface}]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0

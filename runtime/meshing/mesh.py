"""A triangle mesh with colours, and perhaps a texture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..arguments import real_number
from ..array_record import ArrayRecord
from ..array_types import Array
from ..errors import OptionError

if TYPE_CHECKING:  # Takes time to import, and most runs only draw.
    from .texture import Texture

UP = ("y", "z")


@dataclass(frozen=True, eq=False)
class Mesh(ArrayRecord):
    """A closed triangle mesh in the scene's frame: y up, counter-clockwise triangles seen from outside.

    Attributes:
        vertices: (V, 3) float32, scene units.
        faces: (F, 3) int64 indices.
        colors: (V, 3) float32 in [0, 1], as the images have them (sRGB).
        texture: an image laid on the faces, finer than the vertices' colours; None without one.
    """

    vertices: Array
    faces: NDArray[np.int64]
    colors: Array
    texture: Texture | None = None

    @property
    def normals(self) -> Array:
        """(V, 3) float32 unit vectors, outward."""
        return vertex_normals(self.vertices, self.faces)

    def placed(self, scale: float | None = None, ground: bool = False, up: str = "y") -> Mesh:
        """Returns the mesh as another program wants it.

        Args:
            scale: length of the longest side of its bounding box, in metres as most formats count (STL has no unit:
                slicers take millimetres); None keeps scene units.
            ground: puts its lowest point at height 0.
            up: "y", as glTF and USD have it, or "z" as CAD, printing and Blender do; the front then looks along -y.

        Raises:
            OptionError: an argument out of range.
        """
        if up not in UP:
            raise OptionError(f"up must be one of {UP}, not {up!r}.", "The default is 'y'.")
        vertices = self.vertices
        if scale is not None:
            length = real_number("scale", scale, above=0)
            vertices = vertices * np.float32(length / np.ptp(vertices, axis=0).max())
        if ground:
            vertices = vertices - np.array([0, vertices[:, 1].min(), 0], np.float32)
        if up == "z":
            vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)
        return replace(self, vertices=np.ascontiguousarray(vertices, np.float32))

    def save(self, path: str | Path) -> list[Path]:
        """Writes .glb, .obj, .ply, .stl or .usdz, by the path's ending.

        GLB and USDZ hold the texture or else the vertices' colours, with normals; OBJ has the texture beside it, in
        NAME_texture.png and NAME.mtl; PLY has the vertices' colours; STL has the shape alone.

        Returns:
            The files written, the path itself first.

        Raises:
            OptionError: another ending, or a library for it is not installed.
        """
        from .writing import save_mesh  # What it imports is an extra.

        return save_mesh(self, Path(path))


def vertex_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Unit normals (V, 3), outward, of faces weighted by their area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    summed = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            summed[:, axis] += np.bincount(faces[:, corner], normals[:, axis], len(vertices))
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)

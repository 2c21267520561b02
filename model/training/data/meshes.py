"""Mesh files as objects that rays can be sent at: read by trimesh, cast by Embree, lit as procedural objects are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.ray.ray_pyembree import RayMeshIntersector
from trimesh.visual import ColorVisuals, TextureVisuals

from runtime.array_types import Array
from runtime.errors import ProjectError

from ..procedural.families import yaw
from ..procedural.solids import AMBIENT, FAR, LIGHT
from .framing import framing_of

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
_FLAT = 0.05
# Room for an object in the cube, so that the planes' border texels stay empty.
_ROOM = 0.98
_MOST_FACES = 300_000
_MOST_BYTES = 64 << 20


class MeshError(ProjectError, ValueError):
    """A mesh that is not drawn; the message says why: flat, empty, damaged, too large, too deep."""


@dataclass(frozen=True)
class Part:
    """The faces of one material.

    Attributes:
        colours: (V, 3) float32, the vertices' colours, linear.
        uv: (V, 2) float32 texture coordinates, or None.
        texture: (H, W, 3) uint8 sRGB, or None.
    """

    colours: Array
    uv: Array | None
    texture: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh of several materials, upright (y up), in any size.

    Attributes:
        vertices: (V, 3) float64.
        normals: (V, 3) float64.
        faces: (F, 3) indices.
        part: (F,) index of each face's material.
        first: (parts,) index of each material's first vertex.
        parts: the materials.
    """

    vertices: NDArray[np.float64]
    normals: NDArray[np.float64]
    faces: NDArray[np.int64]
    part: NDArray[np.int64]
    first: NDArray[np.int64]
    parts: tuple[Part, ...]


def read_mesh(path: Path, up: str = "y") -> Mesh:
    """Reads a mesh file with its colours: textures, materials' base colours, colours of vertices.

    Args:
        path: GLB, glTF, OBJ, PLY or STL; skins are left in their rest pose.
        up: "y" or "z", the axis that points up in the file.

    Raises:
        MeshError: damaged, empty, flat or too large.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise MeshError(f"too large: {path.stat().st_size >> 20} MiB, at most {_MOST_BYTES >> 20}")
    try:
        mesh = _read(path)
    except MeshError:
        raise
    # Readers of file formats raise whatever comes up in a damaged file.
    except Exception as error:
        raise MeshError(f"damaged: {type(error).__name__}: {error}") from None
    if not np.isfinite(mesh.vertices).all() or mesh.faces.max() >= len(mesh.vertices) or mesh.faces.min() < 0:
        raise MeshError("damaged: vertices that are no numbers, or faces without vertices")
    sizes = np.sort(np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0))
    if sizes[2] <= 0:
        raise MeshError("empty: no extent")
    if sizes[0] < _FLAT * sizes[1]:
        raise MeshError(f"flat: thinner than {_FLAT:.0%} of its width")
    if up == "z":
        turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        mesh = moved(mesh, turn)
    return mesh


def _read(path: Path) -> Mesh:
    scene = trimesh.load_scene(path, process=False)
    pieces = [
        (_with_normals(scene.geometry[name]), np.asarray(matrix))
        for matrix, name in (scene.graph[node] for node in scene.graph.nodes_geometry)
        if isinstance(scene.geometry[name], trimesh.Trimesh)
    ]
    faces = sum(len(piece.faces) for piece, _ in pieces)
    if not faces:
        raise MeshError("empty: no triangles")
    if faces > _MOST_FACES:
        raise MeshError(f"too large: {faces:,} triangles, at most {_MOST_FACES:,}")
    linear = path.suffix.lower() in (".glb", ".gltf")
    counts = [len(piece.vertices) for piece, _ in pieces]
    first = np.cumsum([0, *counts[:-1]])
    return Mesh(
        np.concatenate([trimesh.transform_points(piece.vertices, matrix) for piece, matrix in pieces]),
        np.concatenate([piece.vertex_normals @ np.linalg.pinv(matrix[:3, :3]) for piece, matrix in pieces]),
        np.concatenate([piece.faces + start for (piece, _), start in zip(pieces, first, strict=True)]),
        np.repeat(np.arange(len(pieces)), [len(piece.faces) for piece, _ in pieces]),
        first,
        tuple(_material(piece, linear) for piece, _ in pieces),
    )


class MeshCaster:
    """A mesh turned, framed as every input image is, and ready for rays.

    Args:
        mesh: the object.
        turn: degrees about the vertical axis.
        hue: degrees that its colours are turned by.

    Raises:
        MeshError: framed so, the object would leave the cube.
    """

    def __init__(self, mesh: Mesh, turn: float, hue: float = 0.0) -> None:
        mesh = moved(mesh, yaw(turn))
        used = mesh.vertices[np.unique(mesh.faces)]
        scale, shift = framing_of(used)
        if not np.abs(used * scale + shift).max() <= _ROOM:
            raise MeshError("too deep: framed as a picture, it would leave the cube")
        self._mesh, self._hue = mesh, _hue_rotation(hue)
        self._corners = (mesh.vertices * scale + shift)[mesh.faces]
        surface = trimesh.Trimesh(mesh.vertices * scale + shift, mesh.faces, process=False)
        self._rays = RayMeshIntersector(surface)
        edges = self._corners[:, 1:] - self._corners[:, :1]
        self._across = np.cross(edges[:, 0], edges[:, 1])

    def cast(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """As in `drawing.Caster`."""
        face = np.asarray(self._rays.intersects_first(origins, directions))
        distance, colour = np.full(len(face), FAR, np.float32), np.zeros((len(face), 3), np.float32)
        hit = np.flatnonzero(face >= 0)
        face, start, along = face[hit], origins[hit].astype(np.float64), directions[hit].astype(np.float64)
        corners, across = self._corners[face], self._across[face]
        slope = (across * along).sum(1)
        slope = np.where(np.abs(slope) < 1e-12, 1e-12, slope)
        t = (across * (corners[:, 0] - start)).sum(1) / slope
        weights = _barycentric(corners, across, start + t[:, None] * along)
        distance[hit], colour[hit] = t, self._shade(face, weights, along)
        return distance, colour

    def _shade(self, face: NDArray[np.int64], weights: NDArray[np.float64], along: NDArray[np.float64]) -> Array:
        mesh = self._mesh
        normal = np.einsum("nk,nkd->nd", weights, mesh.normals[mesh.faces[face]])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        # Few meshes are closed: either side of a triangle is lit as the one that is looked at.
        facing = np.where((self._across[face] * along).sum(1) > 0, -1.0, 1.0)
        outward = np.where((normal * self._across[face]).sum(1) < 0, -1.0, 1.0)
        lit = AMBIENT + (1 - AMBIENT) * np.maximum(0, (normal @ LIGHT) * facing * outward)
        albedo = np.empty((len(face), 3), np.float32)
        for index in np.unique(mesh.part[face]):
            chosen = np.flatnonzero(mesh.part[face] == index)
            corners = mesh.faces[face[chosen]] - mesh.first[index]
            albedo[chosen] = _albedo(mesh.parts[index], corners, weights[chosen].astype(np.float32))
        return np.clip(albedo @ self._hue, 0, 1) * lit[:, None].astype(np.float32)


def _with_normals(piece: trimesh.Trimesh) -> trimesh.Trimesh:
    """The piece with its file's normals; where there are none with flat faces, as glTF wants it."""
    # What trimesh's own exporters ask; the property itself would make up smooth ones.
    if "vertex_normals" not in piece._cache.cache:
        piece = piece.copy()
        piece.unmerge_vertices()
    return piece


def _material(piece: trimesh.Trimesh, linear: bool) -> Part:
    """A piece's colours, linear, and its texture."""
    count = len(piece.vertices)
    white = np.ones((count, 3), np.float32)
    visual = piece.visual
    if isinstance(visual, ColorVisuals):
        if visual.kind is None:
            return Part(white, None, None)
        colours = np.asarray(visual.vertex_colors)[:, :3].astype(np.float32) / 255
        return Part(colours if linear else _to_linear(colours), None, None)
    material: Any = visual.material if isinstance(visual, TextureVisuals) else None
    factor = getattr(material, "baseColorFactor", None)
    if factor is None and not linear:
        factor = getattr(material, "diffuse", None)
    if factor is not None:
        values = np.asarray(factor, np.float32)[:3] / 255
        white = white * (values if linear else _to_linear(values))
    attributes = getattr(visual, "vertex_attributes", None) or {}
    if linear and "color" in attributes:
        own = np.asarray(attributes["color"], np.float32)[:, :3]
        white = white * (own / 255 if own.max() > 1 else own)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    uv = None if visual.uv is None else np.asarray(visual.uv, np.float32)
    if picture is None or uv is None or len(uv) != count:
        return Part(white, None, None)
    return Part(white, uv, np.asarray(picture.convert("RGB")))


def _albedo(part: Part, corners: NDArray[np.int64], weights: Array) -> Array:
    """sRGB colours (N, 3) at barycentric places of faces, of which `corners` (N, 3) are vertices of the part."""
    colours = np.einsum("nk,nkd->nd", weights, part.colours[corners])
    if part.texture is not None and part.uv is not None:
        u, v = np.einsum("nk,nkd->dn", weights, part.uv[corners])
        height, width = part.texture.shape[:2]
        # glTF's and OBJ's textures repeat; trimesh has v upwards.
        column = np.floor((u % 1) * width).astype(int).clip(0, width - 1)
        row = np.floor(((1 - v) % 1) * height).astype(int).clip(0, height - 1)
        texels = part.texture[row, column].astype(np.float32) / 255
        if (part.colours == 1).all():
            return texels
        colours = colours * _to_linear(texels)
    return np.where(colours <= 0.0031308, 12.92 * colours, 1.055 * np.maximum(colours, 1e-6) ** (1 / 2.4) - 0.055)


def _to_linear(colours: Array) -> Array:
    """sRGB to linear (IEC 61966-2-1)."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _hue_rotation(degrees: float) -> Array:
    """The matrix (3, 3) that turns colours about the grey axis, to be multiplied from the right."""
    angle = np.radians(degrees)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation.T.astype(np.float32)


def _barycentric(
    corners: NDArray[np.float64], across: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 3) weights of the corners (N, 3, 3) of triangles with normals `across` at points (N, 3) in their planes."""
    area = np.maximum((across * across).sum(1), 1e-30)
    rest = [corners[:, (k + 2) % 3] - corners[:, (k + 1) % 3] for k in range(3)]
    weights = [(np.cross(rest[k], points - corners[:, (k + 1) % 3]) * across).sum(1) / area for k in range(3)]
    return np.clip(np.stack(weights, axis=1), 0, 1)


def moved(mesh: Mesh, matrix: NDArray[np.float64]) -> Mesh:
    """Returns a mesh whose points p are matrix (3, 3) @ p; a mirroring one leaves the lighting right."""
    normals = mesh.normals @ np.linalg.inv(matrix)
    return Mesh(mesh.vertices @ matrix.T, normals, mesh.faces, mesh.part, mesh.first, mesh.parts)

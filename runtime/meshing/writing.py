"""Files of a mesh: GLB, OBJ, PLY and STL by trimesh, USDZ by OpenUSD."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, install_hint
from ..files import atomic_write
from ..outputs import MARK, png_bytes
from .mesh import Mesh

# Of `FORMATS`, those whose specification says which way is up.
Y_UP = (".glb", ".usdz")


def files_of(path: Path, textured: bool) -> list[Path]:
    """Names the files that a mesh becomes, the path itself first.

    Raises:
        OptionError: the ending is none of `FORMATS`.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise OptionError(f"A mesh cannot be written as {path.suffix or path.name!r}.", f"Use {', '.join(FORMATS)}.")
    if textured and ending == ".obj":
        return [path, path.with_suffix(".mtl"), path.with_name(f"{path.stem}_texture.png")]
    return [path]


def save_mesh(mesh: Mesh, path: Path) -> list[Path]:
    """Writes a mesh, each file whole or not at all; arguments and errors as in `file_contents`.

    Returns:
        The files written, the path itself first.
    """
    contents = file_contents(mesh, path)
    for target, content in contents.items():
        with atomic_write(target) as partial:
            partial.write_bytes(content)
    return list(contents)


def file_contents(mesh: Mesh, path: Path) -> dict[Path, bytes]:
    """Returns what `save_mesh` writes.

    Args:
        mesh: to write.
        path: ends on one of `FORMATS`.

    Returns:
        The content of each file, that of the path itself first.

    Raises:
        OptionError: another ending, or a library for it is not installed.
    """
    files = files_of(path, mesh.texture is not None)
    return dict(zip(files, FORMATS[path.suffix.lower()](mesh, path.stem), strict=True))


def split_at_seams(mesh: Mesh) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Gives every vertex one place in the texture, as most formats want it.

    Args:
        mesh: with a texture.

    Returns:
        index of the mesh's vertex for each new one (W,), faces (F, 3) of new ones, and uv (W, 2).
    """
    assert mesh.texture is not None
    uv = mesh.texture.uv.reshape(-1, 2)
    corners = np.column_stack([mesh.faces.reshape(-1).astype(np.float64), uv])
    _, first, renumbered = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    return mesh.faces.reshape(-1)[first], renumbered.reshape(-1, 3), uv[first]


def _glb(mesh: Mesh, name: str) -> list[bytes]:
    from PIL import Image

    trimesh = _trimesh()
    surface = trimesh.visual.material.PBRMaterial(name=name, metallicFactor=0.0, roughnessFactor=1.0)
    if mesh.texture is None:
        # Vertex colours of glTF are linear.
        visual: dict[str, Any] = {"vertex_colors": _bytes(linear(mesh.colors))}
        made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False, **visual)
    else:
        surface.baseColorTexture = Image.fromarray(mesh.texture.image)
        vertex, faces, uv = split_at_seams(mesh)
        visual = {"visual": trimesh.visual.TextureVisuals(uv=uv, material=surface)}
        made = trimesh.Trimesh(
            mesh.vertices[vertex], faces, vertex_normals=mesh.normals[vertex], process=False, **visual
        )

    def finish(tree: dict[str, Any]) -> None:
        tree["asset"]["generator"] = MARK
        if mesh.texture is None:
            # Without a material some viewers leave vertex colours out.
            matt = {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
            tree["materials"] = [{"name": name, "pbrMetallicRoughness": matt}]
            for each in tree["meshes"]:
                for primitive in each["primitives"]:
                    primitive["material"] = 0

    return [trimesh.Scene({name: made}).export(file_type="glb", include_normals=True, tree_postprocessor=finish)]


def _obj(mesh: Mesh, name: str) -> list[bytes]:
    from PIL import Image
    from trimesh.exchange.obj import export_obj

    trimesh = _trimesh()
    if mesh.texture is None:
        made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=_bytes(mesh.colors), process=False)
        return [export_obj(made, header=MARK).encode()]
    surface = trimesh.visual.material.SimpleMaterial(image=Image.fromarray(mesh.texture.image), diffuse=[255] * 4)
    # The image takes the material's name, and the image that was reconstructed may lie beside it.
    surface.name = f"{name}_texture"
    vertex, faces, uv = split_at_seams(mesh)
    visual = trimesh.visual.TextureVisuals(uv=uv, material=surface)
    made = trimesh.Trimesh(
        mesh.vertices[vertex], faces, vertex_normals=mesh.normals[vertex], visual=visual, process=False
    )
    text, beside = export_obj(made, include_normals=True, return_texture=True, mtl_name=f"{name}.mtl", header=MARK)
    material = f"# {MARK}\n".encode() + beside[f"{name}.mtl"]
    return [text.encode(), material, png_bytes(mesh.texture.image)]


def _ply(mesh: Mesh, _: str) -> list[bytes]:
    made = _trimesh().Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=mesh.normals, vertex_colors=_bytes(mesh.colors), process=False
    )
    head, _, rest = made.export(file_type="ply", vertex_normal=True).partition(b"\nelement")
    return [head + f"\ncomment {MARK}\nelement".encode() + rest]


def _stl(mesh: Mesh, _: str) -> list[bytes]:
    made = _trimesh().Trimesh(mesh.vertices, mesh.faces, process=False)
    # A binary STL begins with 80 bytes that mean nothing.
    return [MARK.encode().ljust(80) + made.export(file_type="stl")[80:]]


def _usdz(mesh: Mesh, _: str) -> list[bytes]:
    from .usd import usdz_bytes

    return [usdz_bytes(mesh)]


# What writes a mesh by the ending of its file: the content of each of `files_of`, from the mesh and its name.
FORMATS: dict[str, Callable[[Mesh, str], list[bytes]]] = {
    ".glb": _glb,
    ".obj": _obj,
    ".ply": _ply,
    ".stl": _stl,
    ".usdz": _usdz,
}


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise OptionError("Writing a mesh needs trimesh, which is not installed.", install_hint("mesh")) from None
    return trimesh


def _bytes(colors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(V, 4) uint8 of colours (V, 3) in [0, 1]."""
    return np.round(np.column_stack([colors, np.ones(len(colors))]) * 255).astype(np.uint8)


def linear(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1: display colours to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)

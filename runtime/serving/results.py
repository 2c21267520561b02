"""What a request gets: files of a scene, in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import cached_property
from pathlib import Path

import numpy as np

from ..geometry.cameras import Camera
from ..meshing.mesh import Mesh
from ..meshing.writing import file_contents
from ..outputs import animation_bytes, depth_bytes, normals_bytes, png_bytes
from ..scene import Frame, Scene
from .options import Options

MEDIA_TYPES = {
    ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif", ".glb": "model/gltf-binary",
    ".obj": "model/obj", ".mtl": "model/mtl", ".ply": "application/octet-stream", ".stl": "model/stl",
    ".usdz": "model/vnd.usdz+zip", ".npz": "application/octet-stream", ".zip": "application/zip",
}  # fmt: skip


class Results:
    """What can be made of a scene; views and meshes that several formats share are made once.

    Args:
        scene: the object.
        options: what to make.
        stopped: tells, between two pieces, whether the result is wanted no more.
    """

    def __init__(self, scene: Scene, options: Options, stopped: Callable[[], bool] = lambda: False) -> None:
        self.scene, self.options, self._stopped = scene, options, stopped

    def file(self) -> tuple[str, bytes]:
        """Returns the name and the content of what the options ask for: one file, or a zip of several.

        Raises:
            CancelledError: nobody waits for it any more.
        """
        files: dict[str, bytes] = {}
        for kind in dict.fromkeys(self.options.format):
            self._go_on()
            files |= self._make(kind)
        if len(files) == 1:
            return next(iter(files.items()))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        return "object.zip", buffer.getvalue()

    def _make(self, name: str) -> dict[str, bytes]:
        if name in ("glb", "obj", "ply", "stl", "usdz"):
            contents = file_contents(self._mesh, Path(f"object.{name}"))
            return {path.name: content for path, content in contents.items()}
        makers: dict[str, tuple[str, Callable[[], bytes]]] = {
            "png": ("object.png", lambda: png_bytes(self._view.to_uint8(self.options.transparent))),
            "depth": ("object_depth.png", lambda: depth_bytes(self._view)),
            "normals": ("object_normals.png", lambda: normals_bytes(self._view)),
            "webp": ("object.webp", lambda: self._turntable("WEBP", self.options.transparent)),
            "gif": ("object.gif", lambda: self._turntable("GIF", False)),
            "input": ("object_input.png", self._input),
            "npz": ("object.npz", self._triplane),
        }
        file, make = makers[name]
        return {file: make()}

    @cached_property
    def _view(self) -> Frame:
        options = self.options
        camera = Camera.orbit(options.azimuth, options.elevation)
        return self.scene.render(
            camera, options.size, options.samples, projected=options.projected, normals="normals" in options.format
        )

    @cached_property
    def _mesh(self) -> Mesh:
        options = self.options
        mesh = self.scene.mesh(
            options.resolution, options.projected, faces=options.faces, texture=options.texture or None
        )
        return mesh.placed(options.scale, options.ground)

    def _turntable(self, kind: str, transparent: bool) -> bytes:
        options = self.options
        views = self.scene.orbit(
            options.frames, options.elevation, image_size=options.size, num_samples=options.samples,
            projected=options.projected,
        )  # fmt: skip
        frames = []
        for view in views:
            self._go_on()
            frames.append(view.to_uint8(transparent))
        return animation_bytes(frames, kind)

    def _go_on(self) -> None:
        if self._stopped():
            raise CancelledError

    def _input(self) -> bytes:
        assert self.scene.source is not None
        return png_bytes(self.scene.source.to_uint8())

    def _triplane(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, triplane=self.scene.triplane)
        return buffer.getvalue()

"""Posed views on disk: the NeRF-synthetic layout, written and read, and the ShapeNet-SRN layout, read.

Both have z up in the world; this project has y up, so cameras are turned at the door: (x, y, z) becomes (x, z, -y).
What Blender shows from the front (numpad 1, looking along +y) is what the canonical camera sees at azimuth 0.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.errors import CameraError
from runtime.files import atomic_write
from runtime.geometry.cameras import Camera
from runtime.preprocessing.regions import touching_border

from .drawing import OrthographicViews
from .transforms import DEPTH_UNIT, TRANSFORMS, DataError, has_transforms, read_transforms

_Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
# An opaque view's background differs by no more; the object may reach the border on this share of it.
_EVEN, _BORDER_OBJECT = 8, 0.25
ORTHOGRAPHIC, ORTHOGRAPHIC_DEPTH = "orthographic.png", "orthographic_depth.png"


@dataclass(frozen=True)
class PosedViews:
    """One object seen from V cameras, the input view first.

    Attributes:
        rgba: (V, S, S, 4) uint8, alpha not premultiplied.
        cameras: V cameras in the project's frame.
        depth: (V, S, S) float32, scene units along the viewing axis, 0 where nothing is; None where it is not known.
        orthographic: what the training's teacher sees; None where it is not known.
    """

    rgba: NDArray[np.uint8]
    cameras: tuple[Camera, ...]
    depth: NDArray[np.float32] | None = None
    orthographic: OrthographicViews | None = None


@dataclass(frozen=True)
class ViewFiles:
    """An object's folder, checked, its images still on disk.

    Attributes:
        images: V files, the input view first.
        cameras: theirs.
        depths: V files of 16-bit depth in units of `depth_unit` scene units; empty where depth is not known.
        orthographic: the folder, where it has the six orthographic views.
    """

    pictures: tuple[Path, ...]
    cameras: tuple[Camera, ...]
    depths: tuple[Path, ...]
    depth_unit: float
    orthographic: Path | None

    def rgba(self, view: int) -> NDArray[np.uint8]:
        """(S, S, 4) uint8, padded to a square, an even background removed. Raises `DataError` for damaged ones."""
        return _squared(without_background(_read(self.pictures[view], "RGBA"), self.pictures[view]))

    def depth(self, view: int) -> NDArray[np.float32]:
        """(S, S) float32, as in `PosedViews`."""
        values = _read(self.depths[view])
        if values.ndim != 2:
            raise DataError(f"{self.depths[view]} must be one channel of depth, not {values.shape}.")
        return _squared(values).astype(np.float32) * np.float32(self.depth_unit)

    def six_views(self) -> OrthographicViews:
        """The orthographic views. Raises `DataError` where there are none."""
        if self.orthographic is None:
            raise DataError(
                f"{self.pictures[0].parent} has no {ORTHOGRAPHIC}, which the teacher needs: make the data with "
                "`python -m model.training.dataset from-meshes`, or leave the teacher and the detail stage out."
            )
        rgba = _tiles(_read(self.orthographic / ORTHOGRAPHIC, "RGBA"))
        return OrthographicViews(rgba, _tiles(_read(self.orthographic / ORTHOGRAPHIC_DEPTH)).astype(np.uint16))


def write_transforms(folder: Path, views: PosedViews) -> None:
    """Writes `transforms.json` and one RGBA PNG a view, as Blender's NeRF-synthetic scenes have them.

    Depth, where it is known, becomes a 16-bit PNG beside each view; the six orthographic views two more.
    """
    fovs = {camera.fov for camera in views.cameras}
    if len(fovs) != 1:
        raise DataError(f"{TRANSFORMS} holds one field of view for all cameras, not {sorted(fovs)}.")
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for index, (pixels, camera) in enumerate(zip(views.rgba, views.cameras, strict=True)):
        _write(folder / f"r_{index:03d}.png", pixels)
        frame = {"file_path": f"./r_{index:03d}", "transform_matrix": (_Z_UP_TO_Y_UP.T @ camera.pose).tolist()}
        if views.depth is not None:
            name = f"./r_{index:03d}_depth.png"
            _write(folder / name, np.round(views.depth[index] / DEPTH_UNIT).clip(0, 65535).astype(np.uint16))
            frame["depth_file_path"] = name
        frames.append(frame)
    if views.orthographic is not None:
        _write(folder / ORTHOGRAPHIC, _joined(views.orthographic.rgba))
        _write(folder / ORTHOGRAPHIC_DEPTH, _joined(views.orthographic.depth))
    description = {"camera_angle_x": math.radians(fovs.pop()), "depth_unit": DEPTH_UNIT, "frames": frames}
    # Written last and whole: a folder that has it is complete.
    with atomic_write(folder / TRANSFORMS) as partial:
        partial.write_text(json.dumps(description, indent=1))


def find_views(folder: Path, scale: float = 1.0) -> ViewFiles:
    """Finds an object's views in either layout.

    Args:
        folder: with `transforms.json` (or its splits), or with `intrinsics.txt`, `rgb/` and `pose/`.
        scale: multiplies positions and depth, to bring an object of another size into the unit sphere.

    Raises:
        DataError: neither layout, a file missing or damaged.
    """
    depths: list[Path] = []
    unit = 0.0
    if has_transforms(folder):
        found = read_transforms(folder)
        paths, poses, fov, depths, unit = found.paths, found.poses, found.fov, found.depths, found.depth_unit
    elif (folder / "intrinsics.txt").is_file():
        paths, poses, fov = _srn(folder)
    else:
        raise DataError(f"{folder} holds no {TRANSFORMS}, and no intrinsics.txt of the ShapeNet-SRN layout.")
    cameras = []
    for path, pose in zip(paths, poses, strict=True):
        turned = _Z_UP_TO_Y_UP @ pose
        turned[:3, 3] *= scale
        try:
            cameras.append(Camera(turned, fov))
        except CameraError as error:
            raise DataError(f"The camera of {path} cannot be used: {error}") from None
    missing = [path for path in (*paths, *depths) if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]} is not there, though the cameras in {folder} name it.")
    # The six views are of the cube itself: where the object is scaled into it, they are of something else.
    known = all((folder / name).is_file() for name in (ORTHOGRAPHIC, ORTHOGRAPHIC_DEPTH))
    six = folder if scale == 1 and known else None
    return ViewFiles(tuple(paths), tuple(cameras), tuple(depths), unit * scale, six)


def read_views(folder: Path, scale: float = 1.0) -> PosedViews:
    """Reads the images and cameras of an object's folder in either layout, as `find_views` finds them.

    Raises:
        DataError: as there; or images damaged, not square or of different sizes.
    """
    files = find_views(folder, scale)
    pictures = [files.rgba(index) for index in range(len(files.pictures))]
    sizes = {picture.shape[0] for picture in pictures}
    if len(sizes) != 1:
        raise DataError(f"The views of {folder} must be of one size, not of {sorted(sizes)} pixels.")
    return PosedViews(np.stack(pictures), files.cameras)


def object_folders(root: Path) -> list[Path]:
    """The objects of a data set: the folders below `root` that hold one each, sorted by name."""
    try:
        below = sorted(root.iterdir())
    except OSError as error:
        raise DataError(f"{root} cannot be read as a folder ({error}).") from None
    folders = [p for p in below if has_transforms(p) or (p / "intrinsics.txt").is_file()]
    if not folders:
        raise DataError(f"{root} holds no object: one folder each, with {TRANSFORMS} or intrinsics.txt, is expected.")
    return folders


def _srn(folder: Path) -> tuple[list[Path], list[NDArray[np.float64]], float]:
    """ShapeNet-SRN: OpenCV cameras; the first line of intrinsics.txt is focal length and centre, the last the size."""
    paths = sorted((folder / "rgb").glob("*.png"))
    try:
        lines = (folder / "intrinsics.txt").read_text().strip().splitlines()
        focal, height = float(lines[0].split()[0]), float(lines[-1].split()[0])
        poses = [np.loadtxt(folder / "pose" / f"{path.stem}.txt").reshape(4, 4) for path in paths]
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{folder} is not in the ShapeNet-SRN layout ({error}).") from None
    if not paths:
        raise DataError(f"{folder / 'rgb'} holds no picture.")
    opencv = np.diag([1.0, -1.0, -1.0, 1.0])
    return paths, [pose @ opencv for pose in poses], 2 * math.degrees(math.atan(height / 2 / focal))


def without_background(rgba: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Keys out the even background of an opaque view, as ShapeNet-SRN is distributed; other views are as they are.

    Args:
        rgba: (H, W, 4).
        path: for messages.

    Raises:
        DataError: the view is opaque, and its border is not of one colour: it would count as a solid square.
    """
    if rgba[..., 3].min() < 255:
        return rgba
    colours = rgba[..., :3].astype(np.int16)
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    key = np.median(border, axis=0).astype(np.int16)
    away = np.abs(colours - key).max(-1)
    if (np.abs(border - key).max(-1) > _EVEN).mean() > _BORDER_OBJECT:
        raise DataError(f"{path} has no transparency, and its border is not of one colour: give RGBA views.")
    # Holes are of exactly that colour; around the object compression may have changed it a little.
    background = touching_border(away <= _EVEN) | (away == 0)
    keyed = rgba.copy()
    keyed[background, 3] = 0
    return keyed


def _squared(pixels: NDArray[Any]) -> NDArray[Any]:
    """Padded with nothing to a square, the image in its middle."""
    height, width = pixels.shape[:2]
    # An odd difference moves the middle by half a pixel.
    pads = [((max(height, width) - side) // 2, -(-(max(height, width) - side) // 2)) for side in (height, width)]
    pads += [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, pads)


def _read(path: Path, mode: str | None = None) -> NDArray[Any]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    except OSError as error:
        raise DataError(f"{path} cannot be read as a picture ({error}).") from None


def _write(path: Path, pixels: NDArray[Any]) -> None:
    # Mostly empty images: more effort would make them hardly smaller.
    Image.fromarray(pixels).save(path, compress_level=1)


def _joined(views: NDArray[Any]) -> NDArray[Any]:
    """(3, 2, S, S, ...) as one image (3 S, 2 S, ...): a row each plane."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in views])


def _tiles(picture: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `_joined`."""
    side = picture.shape[1] // 2
    if picture.shape[:2] != (3 * side, 2 * side):
        raise DataError(f"{ORTHOGRAPHIC} must be three rows of two squares, not {picture.shape[1]}x{picture.shape[0]}.")
    return picture.reshape(3, side, 2, side, *picture.shape[2:]).swapaxes(1, 2)

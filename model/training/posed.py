"""Posed views on disk: the NeRF-synthetic layout, written and read, and the ShapeNet-SRN layout, read.

Both have z up in the world; this project has y up, so cameras are turned at the door: (x, y, z) becomes (x, z, -y).
What Blender shows from the front (numpad 1, looking along +y) is what the canonical camera sees at azimuth 0.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.cameras import Camera
from runtime.errors import CameraError

_Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
TRANSFORMS = "transforms.json"


class DataError(ValueError):
    """A data set that is missing something, or holds what cannot be used."""


@dataclass(frozen=True)
class PosedViews:
    """One object seen from V cameras, the input view first.

    Attributes:
        rgba: (V, S, S, 4) uint8, alpha not premultiplied.
        cameras: V cameras in the project's frame.
    """

    rgba: NDArray[np.uint8]
    cameras: tuple[Camera, ...]


def write_transforms(folder: Path, views: PosedViews) -> None:
    """Writes `transforms.json` and one RGBA PNG a view, as Blender's NeRF-synthetic scenes have them."""
    fovs = {camera.fov for camera in views.cameras}
    if len(fovs) != 1:
        raise DataError(f"{TRANSFORMS} holds one field of view for all cameras, not {sorted(fovs)}.")
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for index, (pixels, camera) in enumerate(zip(views.rgba, views.cameras, strict=True)):
        Image.fromarray(pixels).save(folder / f"r_{index:03d}.png")
        frames.append({"file_path": f"./r_{index:03d}", "transform_matrix": (_Z_UP_TO_Y_UP.T @ camera.pose).tolist()})
    description = {"camera_angle_x": math.radians(fovs.pop()), "frames": frames}
    (folder / TRANSFORMS).write_text(json.dumps(description, indent=1))


def read_views(folder: Path, scale: float = 1.0) -> PosedViews:
    """Reads an object's folder in either layout.

    Args:
        folder: with `transforms.json`, or with `intrinsics.txt`, `rgb/` and `pose/`.
        scale: multiplies positions, to bring an object of another size into the unit sphere.

    Raises:
        DataError: neither layout, a file missing or damaged, pictures not square or of different sizes.
    """
    if (folder / TRANSFORMS).is_file():
        paths, poses, fov = _transforms(folder)
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
    return PosedViews(_pictures(paths), tuple(cameras))


def object_folders(root: Path) -> list[Path]:
    """The objects of a data set: the folders below `root` that hold one each, sorted by name."""
    folders = [p for p in sorted(root.iterdir()) if (p / TRANSFORMS).is_file() or (p / "intrinsics.txt").is_file()]
    if not folders:
        raise DataError(f"{root} holds no object: one folder each, with {TRANSFORMS} or intrinsics.txt, is expected.")
    return folders


def _transforms(folder: Path) -> tuple[list[Path], list[NDArray[np.float64]], float]:
    try:
        description = json.loads((folder / TRANSFORMS).read_text())
        fov = math.degrees(description["camera_angle_x"])
        frames = [(frame["file_path"], np.array(frame["transform_matrix"], float)) for frame in description["frames"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / TRANSFORMS} is damaged ({error}).") from None
    if not frames:
        raise DataError(f"{folder / TRANSFORMS} names no frame.")
    # Blender's exporters leave the ending out.
    paths = [folder / name if Path(name).suffix == ".png" else folder / f"{name}.png" for name, _ in frames]
    return paths, [pose for _, pose in frames], fov


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


def _pictures(paths: list[Path]) -> NDArray[np.uint8]:
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                pictures.append(np.asarray(picture.convert("RGBA")))
        except OSError as error:
            raise DataError(f"{path} cannot be read as a picture ({error}).") from None
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1 or len({*shapes.copy().pop()[:2]}) != 1:
        raise DataError(f"The views must be square and of one size, not {sorted(s[1::-1] for s in shapes)}.")
    return np.stack(pictures)

"""`transforms.json` as Blender, instant-ngp, nerfstudio and the NeRF-synthetic download write it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ProjectError

TRANSFORMS = "transforms.json"
# The download of the NeRF-synthetic scenes has no single file.
SPLITS = tuple(f"transforms_{split}.json" for split in ("train", "val", "test"))
DEPTH_UNIT = 1e-4
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE", "")
# Read, or without effect on what a camera sees.
_KNOWN = frozenset(
    {
        "camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx", "cy", "w", "h", "frames", "file_path", "depth_unit",
        "transform_matrix", "depth_file_path", "camera_model", "rotation", "sharpness", "aabb_scale", "colmap_im_id",
        "train_filenames", "val_filenames", "test_filenames", "ply_file_path", "orientation_override", *_DISTORTION,
    }
)  # fmt: skip
# The principal point may lie off the middle by this share of the side: half a pixel of 50.
_OFF_CENTRE, _DIFFERENT_FOV = 0.01, 1e-3


class DataError(ProjectError, ValueError):
    """A data set that is missing something, or holds what cannot be used."""


@dataclass(frozen=True)
class Transforms:
    """What `transforms.json` says of an object.

    Attributes:
        paths: V images.
        poses: V camera-to-world matrices, 4x4, OpenGL's axes, z up in the world.
        fov: of the longer side of the images, in degrees: what a square around them shows.
        depths: V files of depth, or none.
        depth_unit: scene units of a step of depth.
    """

    paths: list[Path]
    poses: list[NDArray[np.float64]]
    fov: float
    depths: list[Path]
    depth_unit: float


def has_transforms(folder: Path) -> bool:
    """Whether a folder holds an object in this layout."""
    return any((folder / name).is_file() for name in (TRANSFORMS, *SPLITS))


def read_transforms(folder: Path) -> Transforms:
    """Reads an object's file, or the files of its splits one after another.

    Raises:
        DataError: damaged, or it describes what is not supported here: distortion, an off-centre principal point,
            fields of view that differ.
    """
    names = [TRANSFORMS] if (folder / TRANSFORMS).is_file() else [n for n in SPLITS if (folder / n).is_file()]
    parts = []
    for name in names:
        try:
            parts.append(_read(folder, folder / name))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            said = f"no {error}" if isinstance(error, KeyError) else error
            raise DataError(f"{folder / name} is damaged ({said}).") from None
    first = parts[0]
    for name, part in zip(names, parts, strict=True):
        if abs(part.fov - first.fov) > _DIFFERENT_FOV * first.fov or part.depth_unit != first.depth_unit:
            raise DataError(f"{folder / name} has another field of view, or unit of depth, than {names[0]}.")
    paths, poses, depths = (
        [item for part in parts for item in getattr(part, field)] for field in ("paths", "poses", "depths")
    )
    if len(depths) not in (0, len(paths)):
        raise DataError(f"{folder} names depth for {len(depths)} of its {len(paths)} frames: all or none.")
    return Transforms(paths, poses, first.fov, depths, first.depth_unit)


def _read(folder: Path, file: Path) -> Transforms:
    description = json.loads(file.read_text(encoding="utf-8-sig"))
    frames = description["frames"]
    if not frames:
        raise DataError(f"{file} names no frame.")
    unknown = {key for part in (description, *frames) for key in part} - _KNOWN
    if unknown:
        warnings.warn(f"{file} has {', '.join(map(repr, sorted(unknown)))}, which is not used here.", stacklevel=2)
    fovs = []
    for frame in frames:
        said = {**description, **frame}
        _refuse(said, file)
        fovs.append(_longer_fov(said, file))
    if max(fovs) - min(fovs) > _DIFFERENT_FOV * max(fovs):
        raise DataError(
            f"{file} has fields of view from {min(fovs):.4g} to {max(fovs):.4g} degrees: one for all is needed."
        )
    paths = [_found(folder, frame["file_path"], _ENDINGS) for frame in frames]
    depths = [_found(folder, frame["depth_file_path"], (".png",)) for frame in frames if "depth_file_path" in frame]
    poses = [_pose(frame["transform_matrix"], file) for frame in frames]
    return Transforms(paths, poses, fovs[0], depths, float(description.get("depth_unit", DEPTH_UNIT)))


def _refuse(said: Mapping[str, Any], file: Path) -> None:
    """Raises a `DataError` for what a pinhole with its centre in the middle does not have."""
    bent = {key: said[key] for key in _DISTORTION if said.get(key)}
    if bent:
        raise DataError(f"{file} has lens distortion ({bent}): undistort the images first.")
    model = str(said.get("camera_model", "")).upper()
    if model not in _PINHOLES:
        raise DataError(f"{file} has the camera model {model}: only pinholes are supported.")
    for centre, side in (("cx", "w"), ("cy", "h")):
        if centre in said and side in said and abs(said[centre] - said[side] / 2) > _OFF_CENTRE * said[side]:
            raise DataError(
                f"{file} has {centre} = {said[centre]:g} where {side} = {said[side]:g}: the principal point must be in "
                "the middle. Crop or pad the images."
            )
    if "fl_x" in said and "fl_y" in said and abs(said["fl_x"] - said["fl_y"]) > _OFF_CENTRE * said["fl_x"]:
        raise DataError(f"{file} has fl_x = {said['fl_x']:g} and fl_y = {said['fl_y']:g}: pixels must be square.")


def _longer_fov(said: Mapping[str, Any], file: Path) -> float:
    """Degrees of view along the longer side."""
    width, height = said.get("w"), said.get("h")
    longer = max(width, height) if width and height else None
    for focal, side in (("fl_x", width), ("fl_y", height)):
        if focal in said and side:
            return math.degrees(2 * math.atan((longer or side) / 2 / said[focal]))
    for angle, side in (("camera_angle_x", width), ("camera_angle_y", height)):
        if angle in said:
            half = math.tan(said[angle] / 2)
            return math.degrees(2 * math.atan(half * (longer / side if longer and side else 1)))
    raise DataError(f"{file} gives no field of view: camera_angle_x, camera_angle_y, or fl_x with w is needed.")


def _found(folder: Path, name: str, endings: Sequence[str]) -> Path:
    """The file that a frame names: with back slashes, without its ending, or in another case."""
    path = folder.joinpath(*PureWindowsPath(name).parts)
    candidates = [path, *(path.with_name(path.name + ending) for ending in endings)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    # On a case-sensitive file system `R_0.PNG` is not `r_0.png`.
    if path.parent.is_dir():
        names = {each.name.lower(): each for each in path.parent.iterdir()}
        for candidate in candidates:
            if candidate.name.lower() in names:
                return names[candidate.name.lower()]
    return path if path.suffix.lower() in endings else candidates[1]


def _pose(matrix: Any, file: Path) -> NDArray[np.float64]:
    pose = np.array(matrix, float)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0, 0, 0, 1]])
    if pose.shape != (4, 4):
        raise DataError(f"{file} has a transform_matrix that is not 4x4 or 3x4.")
    return pose

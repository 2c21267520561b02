"""Cameras, in one frame for the whole project: right-handed, y up, as in glTF and OpenGL.

A camera is a rigid 4x4 camera-to-world matrix that looks along its own -z axis, x to the right and y up, plus a
vertical field of view. The object lies in the unit sphere around the origin. Azimuth grows from +z towards +x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import CameraError

# The canonical camera: where an input image is taken from, and what `camera=None` means.
AZIMUTH, ELEVATION, DISTANCE, FOV = 0.0, 20.0, 3.0, 40.0
# Share of the image's side that an object's bounding square takes in the images that models are trained on.
FOREGROUND_RATIO = 0.7

_OPENCV_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
_RIGID_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Args:
        pose: 4x4 camera-to-world matrix, rigid (a rotation and a position, no scale, no mirror).
        fov: vertical field of view in degrees, above 0 and below 180.

    Raises:
        CameraError: the matrix is not 4x4, not finite, singular, or not rigid; or the field of view is out of range.
    """

    pose: NDArray[np.float64]
    fov: float = FOV

    def __init__(self, pose: ArrayLike, fov: float = FOV) -> None:
        object.__setattr__(self, "pose", _checked_pose(pose))
        object.__setattr__(self, "fov", _checked_fov(fov))

    @classmethod
    def orbit(
        cls, azimuth: float = AZIMUTH, elevation: float = ELEVATION, distance: float = DISTANCE, fov: float = FOV
    ) -> Camera:
        """A camera on a sphere around the origin, looking at the origin, y up.

        Args:
            azimuth: degrees from +z towards +x.
            elevation: degrees above the xz plane, between -90 and 90.
            distance: scene units from the origin, above 0.
            fov: vertical field of view in degrees.
        """
        numbers = all(isinstance(v, int | float | np.number) for v in (azimuth, elevation, distance))
        if not numbers or not np.isfinite((azimuth, elevation, distance)).all() or distance <= 0 or abs(elevation) > 90:
            raise CameraError(
                f"No camera orbits at azimuth {azimuth!r}, elevation {elevation!r}, distance {distance!r}.",
                "Use finite angles in degrees, an elevation between -90 and 90 and a distance above 0.",
            )
        a, e = math.radians(azimuth), math.radians(elevation)
        backward = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
        right = np.array([math.cos(a), 0.0, -math.sin(a)])
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(backward, right), backward], axis=1)
        pose[:3, 3] = distance * backward
        return cls(pose, fov)

    @classmethod
    def from_opencv(cls, pose: ArrayLike, fov: float = FOV) -> Camera:
        """Takes a 4x4 camera-to-world matrix in OpenCV's axes (x right, y down, looking along +z).

        OpenCV's extrinsics (`solvePnP`) are world-to-camera: invert them first.
        """
        return cls(_checked_pose(pose) @ _OPENCV_AXES, fov)

    def to_opencv(self) -> NDArray[np.float64]:
        """The camera-to-world matrix in OpenCV's axes; the inverse of `from_opencv`."""
        return self.pose @ _OPENCV_AXES

    @property
    def position(self) -> NDArray[np.float64]:
        """(3,) world position."""
        return self.pose[:3, 3]

    @property
    def forward(self) -> NDArray[np.float64]:
        """(3,) unit vector of the viewing axis in the world."""
        return -self.pose[:3, 2]

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Projects world points into a square image.

        Args:
            points: (..., 3) world positions, in front of the camera.

        Returns:
            (..., 2) image coordinates (x to the right, y down), the image spanning [-1, 1] on both axes.
        """
        local = (np.asarray(points, np.float64) - self.position) @ self.pose[:3, :3]
        scale = -1.0 / (local[..., 2:] * math.tan(math.radians(self.fov) / 2))
        return local[..., :2] * scale * np.array([1.0, -1.0])

    def __repr__(self) -> str:
        return f"Camera(position={np.round(self.position, 3).tolist()}, fov={self.fov:g})"


def _checked_pose(pose: ArrayLike) -> NDArray[np.float64]:
    remedy = "Give a rigid camera-to-world matrix, as Camera.orbit(azimuth=30) or Camera.from_opencv(pose) make it."
    try:
        matrix = np.array(pose, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CameraError(f"The camera pose is no matrix of numbers ({error}).", remedy) from None
    if matrix.shape != (4, 4):
        raise CameraError(f"The camera pose must be a 4x4 matrix, not of shape {matrix.shape}.", remedy)
    if not np.isfinite(matrix).all():
        raise CameraError("The camera pose holds NaN or infinity.", remedy)
    rotation = matrix[:3, :3]
    determinant = float(np.linalg.det(rotation))
    if abs(determinant) < _RIGID_TOLERANCE:
        raise CameraError(f"The camera pose is singular (determinant {determinant:.2g}).", remedy)
    if determinant < 0:
        raise CameraError("The camera pose mirrors the world (negative determinant).", remedy)
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _RIGID_TOLERANCE:
        raise CameraError("The camera pose scales or shears: its upper 3x3 part is no rotation.", remedy)
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > _RIGID_TOLERANCE:
        raise CameraError(f"The last row of the camera pose must be 0, 0, 0, 1, not {matrix[3].tolist()}.", remedy)
    matrix.setflags(write=False)
    return matrix


def _checked_fov(fov: float) -> float:
    try:
        degrees = float(fov)
    except (TypeError, ValueError):
        degrees = math.nan
    if not 0 < degrees < 180:
        raise CameraError(f"The field of view must lie between 0 and 180 degrees, not {fov!r}.", "The default is 40.")
    return degrees

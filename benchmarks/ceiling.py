"""The ceiling of what a triplane of this size shows: planes that a teacher makes of the object itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

import runtime
from benchmarks.subjects import Subject
from model.renderer import TriplaneRenderer
from model.training.data.pools import teacher_input
from model.training.data.posed import DataError
from model.training.teacher import Teacher
from model.wavelet import WaveletTransform
from runtime.array_types import Array
from runtime.geometry.rays import camera_rays

_RAYS_AT_ONCE = 256
KINDS = ("full", "bilinear details", "zero details")


@dataclass(frozen=True)
class Drawn:
    """rgb (S, S, 3) over white and alpha (S, S), float32 in [0, 1]."""

    rgb: Array
    alpha: Array


@dataclass(frozen=True)
class TeacherScene:
    """Planes (3, C, H, W) and the decoder that reads them."""

    planes: torch.Tensor
    renderer: TriplaneRenderer

    def render(self, camera: runtime.Camera, image_size: int, num_samples: int) -> Drawn:
        """As `runtime.Scene.render`, every sample drawn."""
        rays = camera_rays(camera, image_size, image_size)
        origin, directions, near, far = (
            torch.from_numpy(values)[None] for values in (rays.origin, rays.directions, rays.near, rays.far)
        )
        parts = []
        with torch.no_grad():
            for start in range(0, image_size**2, _RAYS_AT_ONCE):
                part = slice(start, start + _RAYS_AT_ONCE)
                arguments = (origin, directions[:, part], near[:, part], far[:, part], num_samples)
                parts.append(torch.cat(self.renderer.march(self.planes[None], *arguments)[:2], dim=-1)[0])
        pixels = torch.cat(parts).reshape(image_size, image_size, 4).numpy()
        return Drawn(pixels[..., :3] + 1 - pixels[..., 3:], pixels[..., 3])


class Ceiling:
    """Makes scenes of a teacher's planes, with its own details, those of bilinear upsampling, or none.

    Args:
        path: of the teacher's checkpoint. Raises `CheckpointError` where it is none.
    """

    def __init__(self, path: Path) -> None:
        self._teacher, self._wavelet = Teacher.load(path).eval(), WaveletTransform()

    def scenes(self, subject: Subject) -> dict[str, TeacherScene]:
        """By the names in `KINDS`; none where the subject has no orthographic views."""
        if subject.six is None:
            return {}
        if subject.six.rgba.shape[2] != 2 * self._teacher.sizes["resolution"]:
            raise DataError(
                f"{subject.name} has orthographic views of {subject.six.rgba.shape[2]} pixels, the teacher wants "
                f"{2 * self._teacher.sizes['resolution']}."
            )
        with torch.no_grad():
            ll, details = (bands[0] for bands in self._teacher(teacher_input([subject.six])))
        implied = self._wavelet.bilinear_details(ll)
        return {
            kind: TeacherScene(self._wavelet.idwt2d(ll, *bands.chunk(3, dim=1)), self._teacher.renderer)
            for kind, bands in zip(KINDS, (details, implied, torch.zeros_like(details)), strict=True)
        }

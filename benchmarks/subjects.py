"""Held-out objects: their input image, true views from other cameras, and what a teacher sees of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import runtime
from model.training.config import HELD_OUT_SEED
from model.training.data.drawing import OrthographicViews, SolidCaster, draw_orthographic, draw_view, over_white
from model.training.data.framing import cameras_around
from model.training.data.posed import DataError, find_views, object_folders
from model.training.procedural.objects import make_objects
from runtime.array_types import Array

SETS = ("plain", "textured")
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Subject:
    """A held-out object.

    Attributes:
        name: of the object.
        image: (S, S, 3) float32 input, over white.
        rgba: (S, S, 4) float32, the same with its alpha, which colours are not multiplied by.
        truth: (V, S, S, 4) float32 true views from `cameras`.
        seed: a plain procedural object's, for its exact surface; None for others.
        six: what a teacher sees; None where that is not known.
    """

    name: str
    image: Array
    rgba: Array
    truth: Array
    cameras: tuple[runtime.Camera, ...]
    seed: int | None
    six: OrthographicViews | None


def procedural_subjects(
    count: int, seed: int, size: int, input_size: int, planes: int = 128, kind: str = "plain"
) -> Iterator[Subject]:
    """Objects from held-out seeds, of a kind in `SETS`."""
    around, textured = cameras_around(), kind == "textured"
    for index in range(HELD_OUT_SEED + seed, HELD_OUT_SEED + seed + count):
        caster = SolidCaster(make_objects([index], textured=textured))
        rgba, _ = draw_view(caster, runtime.Camera.orbit(), input_size, _SUPERSAMPLING)
        truth = np.stack([draw_view(caster, camera, size, _SUPERSAMPLING)[0] for camera in around])
        known = None if textured else index
        six = draw_orthographic(caster, planes)
        yield Subject(f"{kind} {index}", over_white(rgba), rgba, truth, around, known, six)


def posed_subjects(root: Path, limit: int, size: int) -> Iterator[Subject]:
    """Other people's objects: posed views, the input first. Evenly among all, which are sorted by name."""
    folders = object_folders(root)
    chosen = np.unique(np.linspace(0, len(folders) - 1, min(limit, len(folders))).astype(int))
    for folder in (folders[index] for index in chosen):
        files = find_views(folder)
        if len(files.cameras) < 2:
            raise DataError(f"{folder} has no view beside the input.")
        views = [Image.fromarray(files.rgba(view)).resize((size, size)) for view in range(1, len(files.cameras))]
        truth = np.stack([np.asarray(view, np.float32) / 255 for view in views])
        rgba = files.rgba(0).astype(np.float32) / 255
        six = files.six_views() if files.orthographic else None
        yield Subject(folder.name, over_white(rgba), rgba, truth, files.cameras[1:], None, six)

"""A folder of mesh files to posed views with depth and orthographic views: what training reads."""

from __future__ import annotations

import csv
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.files import atomic_write
from runtime.geometry.cameras import Camera

from ..procedural.objects import MAX_YAW
from .drawing import draw_orthographic, draw_view, over_white, to_bytes
from .framing import cameras_around, random_camera
from .meshes import SUFFIXES, Mesh, MeshCaster, MeshError, moved, read_mesh
from .posed import TRANSFORMS, DataError, PosedViews, write_transforms

REPORT = "report.csv"
# Turns that are tried before an object counts as too deep to be framed.
_TURNS = 8
_SUPERSAMPLING = 2
# A side becomes longer or shorter by no more than this factor.
_STRETCH = 1.25


@dataclass(frozen=True)
class DrawingPlan:
    """How mesh files are drawn.

    Attributes:
        variants: folders of each mesh, each at a random turn. All but the first are stretched at random along each
            axis, half of them mirrored, half of them in random hues.
        views: images in each folder, the input view first.
        around: draws the others from the quality benchmark's cameras instead of random ones.
        size: side of the images in pixels.
        planes: side of the orthographic views.
        up: the axis that points up in the files, y or z.
        seed: of turns, hues and cameras.
    """

    variants: int = 4
    views: int = 6
    around: bool = False
    size: int = 256
    planes: int = 128
    up: str = "y"
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a mesh file: the folders that were made, and why others were left out ("" if none were)."""

    path: Path
    folders: tuple[Path, ...]
    reason: str


def mesh_files(root: Path) -> list[Path]:
    """The mesh files below a folder, sorted. Raises `DataError` where there are none."""
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"{root} holds no mesh: files ending in {', '.join(SUFFIXES)} are read.")
    return files


def is_validation(path: Path, share: float) -> bool:
    """Whether a file belongs to the share kept for validation, by a hash of its folder and its name's first word.

    Variants of a shape are mostly named alike, so that they stay together.
    """
    word = re.split(r"[_\-. ]|(?<=[a-z])(?=[A-Z0-9])", path.stem)[0].lower()
    return zlib.crc32(f"{path.parent.as_posix()}/{word}".encode()) % 10_000 < share * 10_000


def draw_meshes(
    root: Path, out: Path, plan: DrawingPlan, validation: float = 0.0, workers: int | None = None
) -> Iterator[Outcome]:
    """Draws every mesh below `root` into folders that `posed.find_views` reads; folders that are there stay.

    Args:
        root: of the mesh files.
        out: with `validation`, folders go to `out/train` and `out/validation`.
        plan: how they are drawn.
        validation: share of the files, by name, that is kept for validation.
        workers: processes; as many as cores by default.

    Yields:
        One outcome a file, in the files' order.
    """
    jobs = []
    _claim(out, plan, validation)
    for path in mesh_files(root):
        relative = path.relative_to(root)
        part = ("validation" if is_validation(relative, validation) else "train") if validation else ""
        jobs.append((path, out / part / "__".join(relative.parts), zlib.crc32(relative.as_posix().encode()), plan))
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        yield from pool.map(_draw_file, *zip(*jobs, strict=True))


def write_report(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Which file became how many folders, and why any was left out, as CSV."""
    path = out / REPORT
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "folders", "left_out"])
        writer.writerows([outcome.path, len(outcome.folders), outcome.reason] for outcome in outcomes)
    return path


def _claim(out: Path, plan: DrawingPlan, validation: float) -> None:
    """Keeps how a folder is drawn; raises `DataError` where it holds objects that were drawn, or divided, otherwise."""
    path = out / "plan.json"
    values = {**asdict(plan), "validation": validation, "stretch": _STRETCH}
    if path.exists():
        before = json.loads(path.read_text())
        # More variants are added to those that are there.
        if {**before, "variants": 0} != {**values, "variants": 0}:
            changed = sorted(name for name in values if name != "variants" and before.get(name) != values[name])
            raise DataError(f"{out} was made with other {', '.join(changed)}: name another folder, or remove it.")
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=1))


def _draw_file(path: Path, target: Path, key: int, plan: DrawingPlan) -> Outcome:
    folders = []
    try:
        mesh = read_mesh(path, plan.up)
        for variant in range(plan.variants):
            folder = target.with_name(f"{target.name}-{variant}")
            # Written last: a folder that has it is complete.
            if not (folder / TRANSFORMS).exists():
                write_transforms(folder, _drawn(mesh, np.random.default_rng([plan.seed, key, variant]), variant, plan))
            folders.append(folder)
    except MeshError as error:
        return Outcome(path, tuple(folders), str(error))
    return Outcome(path, tuple(folders), "")


def _drawn(mesh: Mesh, rng: np.random.Generator, variant: int, plan: DrawingPlan) -> PosedViews:
    hue = 0.0
    if variant:
        hue = rng.uniform(0, 360) if rng.random() < 0.5 else 0.0
        sides = _STRETCH ** rng.uniform(-1, 1, 3)
        sides[0] *= rng.choice([-1, 1])
        mesh = moved(mesh, np.diag(sides))
    caster = _turned(mesh, rng, hue)
    others = cameras_around(plan.views - 1) if plan.around else [random_camera(rng) for _ in range(plan.views - 1)]
    cameras = (Camera.orbit(), *others)
    # The benchmark compares whole pixels; training wants single rays, exact in colour and depth.
    pairs = [draw_view(caster, camera, plan.size, _SUPERSAMPLING if plan.around else 1) for camera in cameras]
    rgba, depth = (np.stack(values) for values in zip(*pairs, strict=True))
    return PosedViews(to_bytes(rgba), cameras, depth, draw_orthographic(caster, plan.planes))


def _turned(mesh: Mesh, rng: np.random.Generator, hue: float) -> MeshCaster:
    for left in reversed(range(_TURNS)):
        try:
            return MeshCaster(mesh, rng.uniform(-MAX_YAW, MAX_YAW), hue)
        except MeshError:
            if not left:
                raise
    raise AssertionError("the last turn either returns or raises")


def contact_sheet(folders: Sequence[Path], tile: int = 128, columns: int = 10) -> Image.Image:
    """The input views of objects, over white."""
    rows = -(-len(folders) // columns)
    sheet = Image.new("RGB", (columns * tile, max(1, rows) * tile), "white")
    for index, folder in enumerate(folders):
        with Image.open(folder / "r_000.png") as picture:
            pixels = np.asarray(picture.convert("RGBA").resize((tile, tile)), np.float32) / 255
        place = (index % columns * tile, index // columns * tile)
        sheet.paste(Image.fromarray(to_bytes(over_white(pixels))), place)
    return sheet

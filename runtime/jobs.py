"""One image of the command line's `render`: which files it becomes, and making them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import OptionError
from .geometry.cameras import Camera
from .outputs import (
    ANIMATIONS,
    TRANSPARENT,
    check_animation,
    contact_sheet,
    depth_bytes,
    normals_bytes,
    remove_stale,
    save_animation,
    save_bytes,
    save_png,
)
from .pipeline import Runtime
from .scene import MAX_FRAMES, Frame

# Endings of what is taken for an image in a folder.
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
# Of a turntable, by default: a second and a half.
FRAMES = 36
# Of a contact sheet, where no other number of views is asked for.
SHEET = 9
Progress = Callable[[Iterable[Frame], int, str], Iterable[Frame]]


@dataclass(frozen=True)
class Wanted:
    """What is made of each image, beside the single view.

    Attributes:
        orbit: views around the object.
        depth: whether each view gets a depth image beside it.
        normals: whether each view gets an image of normals beside it.
        transparent: whether views leave the background out.
        sheet: whether to write a contact sheet of the views around the object.
        turntable: ending of an animation, such as ".webp"; "" for none.
        frames: of the animation.
        mesh: whether to write a GLB file.
        save_input: whether to write what the model was given.
    """

    orbit: int = 0
    depth: bool = False
    normals: bool = False
    transparent: bool = False
    sheet: bool = False
    turntable: str = ""
    frames: int = FRAMES
    mesh: bool = False
    save_input: bool = False


@dataclass(frozen=True)
class Job:
    """One image and its files.

    Attributes:
        image: path of the image; "-" for standard input.
        out: folder for what is written.
        wanted: what is made.
    """

    image: Path
    out: Path
    wanted: Wanted

    @property
    def stem(self) -> str:
        """Beginning of the names of its files."""
        return "stdin" if str(self.image) == "-" else self.image.stem

    def single(self) -> list[Path]:
        """Files of the single view, the image first."""
        return self._of_view(self.stem)

    def views(self) -> list[list[Path]]:
        """Files of each view around the object, the image first."""
        number = min(self.wanted.orbit, MAX_FRAMES)
        return [self._of_view(f"{self.stem}_orbit_{index:03d}") for index in range(number)]

    def others(self) -> dict[str, Path]:
        """Its other files, by the name of the option."""
        # A PNG of the image's own name is the single view.
        animation = "_turntable.png" if self.wanted.turntable == ".png" else self.wanted.turntable
        names = {
            "sheet": "_sheet.png",
            "turntable": animation,
            "mesh": ".glb",
            "save_input": "_input.png",
        }
        return {key: self.out / (self.stem + name) for key, name in names.items() if getattr(self.wanted, key)}

    def targets(self) -> list[Path]:
        """All files that it writes, the single view first."""
        return [*self.single(), *(path for view in self.views() for path in view), *self.others().values()]

    def check(self) -> None:
        """Raises an `OptionError` where a library is missing."""
        if self.wanted.turntable:
            check_animation(self.others()["turntable"])

    def run(
        self, rt: Runtime, camera: Camera, elevation: float, making: dict[str, Any], drawing: dict[str, Any],
        exact: bool, progress: Progress, kept: Iterable[Path],
    ) -> list[Path]:  # fmt: skip
        """Makes the files; whatever can fail comes before the first is written.

        Args:
            rt: runtime.
            camera: of the single view.
            elevation: degrees, of the other views.
            making: options of `Runtime.reconstruct`.
            drawing: options of `Scene.render`.
            exact: of the single view.
            progress: wraps frames in a bar.
            kept: files of all jobs, which no job removes.

        Returns:
            What was written.
        """
        wanted, others = self.wanted, self.others()
        scene = rt.reconstruct(self.image, **making)
        around = scene.orbit(wanted.orbit, elevation, normals=wanted.normals, **drawing) if wanted.orbit else ()
        sheet = scene.orbit(wanted.orbit or SHEET, elevation, **drawing) if wanted.sheet else ()
        turning = scene.orbit(wanted.frames, elevation, **drawing) if wanted.turntable else ()
        surface = scene.mesh(projected=drawing["projected"]) if wanted.mesh else None
        first = scene.render(camera, exact=exact, normals=wanted.normals, **drawing)
        self._save_view(first, self.single())
        for frame, paths in zip(progress(around, wanted.orbit, "orbit"), self.views(), strict=True):
            self._save_view(frame, paths)
        if wanted.orbit:
            earlier = re.compile(rf"{re.escape(self.stem)}_orbit_\d{{3,}}(_depth|_normals)?\.png")
            remove_stale(self.out, earlier, kept)
        if wanted.sheet:
            frames = [f.to_uint8(wanted.transparent) for f in progress(sheet, wanted.orbit or SHEET, "sheet")]
            save_png(contact_sheet(frames), others["sheet"])
        if wanted.turntable:
            transparent = wanted.transparent and wanted.turntable in TRANSPARENT
            frames = [f.to_uint8(transparent) for f in progress(turning, wanted.frames, "turntable")]
            save_animation(frames, others["turntable"])
        if surface is not None:
            surface.save(others["mesh"])
        if wanted.save_input and scene.source is not None:
            save_png(scene.source.to_uint8(), others["save_input"])
        return self.targets()

    def _of_view(self, name: str) -> list[Path]:
        kinds = {"": True, "_depth": self.wanted.depth, "_normals": self.wanted.normals}
        return [self.out / f"{name}{kind}.png" for kind, wanted in kinds.items() if wanted]

    def _save_view(self, frame: Frame, paths: Sequence[Path]) -> None:
        image, *beside = paths
        save_png(frame.to_uint8(self.wanted.transparent), image)
        if self.wanted.depth:
            save_bytes(depth_bytes(frame), beside[0])
        if frame.normals is not None:
            save_bytes(normals_bytes(frame), beside[-1])


def jobs_of(images: Sequence[Path], out: Path, turntable: str, **options: Any) -> list[Job]:
    """One job for each image; folders stand for the images in them.

    Args:
        images: paths of images and folders.
        out: folder for what is written.
        turntable: ending of an animation, with or without its dot; "" for none.
        options: the rest of `Wanted`.

    Raises:
        OptionError: two images would write the same files, a folder holds none, or the turntable's ending is unknown.
    """
    ending = f".{turntable.lower().lstrip('.')}" if turntable else ""
    if ending and ending not in ANIMATIONS:
        raise OptionError(f"A turntable cannot be written as {turntable!r}.", f"Use {', '.join(ANIMATIONS)}.")
    jobs = [Job(image, out, Wanted(turntable=ending, **options)) for image in _expanded(images)]
    writers: dict[Path, Path] = {}
    for job in jobs:
        for target in job.targets():
            if target in writers:
                raise OptionError(
                    f"{writers[target]} and {job.image} would both write {target.name}.",
                    "Render them into two folders.",
                )
            writers[target] = job.image
        job.check()
    return jobs


def _expanded(images: Sequence[Path]) -> Iterator[Path]:
    for image in images:
        if not image.is_dir():
            yield image
            continue
        found = sorted(path for path in image.iterdir() if path.suffix.lower() in _ENDINGS)
        if not found:
            raise OptionError(f"The folder {image} holds no image.", f"Endings of images are {', '.join(_ENDINGS)}.")
        yield from found

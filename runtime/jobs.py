"""One image of the command line's `render`: which files it becomes, and making them."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import OptionError
from .geometry.cameras import Camera
from .outputs import ANIMATIONS, remove_stale, save_animation, save_png
from .pipeline import Runtime
from .scene import MAX_FRAMES, Frame

# Endings of what is taken for an image in a folder.
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
# Of a turntable, by default: a second and a half.
FRAMES = 36
Progress = Callable[[Iterable[Frame], int, str], Iterable[Frame]]


@dataclass(frozen=True)
class Job:
    """What is made of one image.

    Attributes:
        image: path of the image; "-" for standard input.
        out: folder for what is written.
        orbit: views around the object.
        mesh: whether to write a GLB file.
        save_input: whether to write what the model was given.
        turntable: ending of an animation, such as ".webp"; "" for none.
        frames: of the animation.
    """

    image: Path
    out: Path
    orbit: int = 0
    mesh: bool = False
    save_input: bool = False
    turntable: str = ""
    frames: int = FRAMES

    @property
    def stem(self) -> str:
        """Beginning of the names of its files."""
        return "stdin" if str(self.image) == "-" else self.image.stem

    def views(self) -> list[Path]:
        """Files of the views around the object."""
        return [self.out / f"{self.stem}_orbit_{index:03d}.png" for index in range(min(self.orbit, MAX_FRAMES))]

    def targets(self) -> list[Path]:
        """All files that it writes, the single view first."""
        # A PNG of the image's own name is the single view.
        animation = "_turntable.png" if self.turntable == ".png" else self.turntable
        optional = (
            (f"{self.stem}{animation}", self.turntable),
            (f"{self.stem}.glb", self.mesh),
            (f"{self.stem}_input.png", self.save_input),
        )
        return [self.out / f"{self.stem}.png", *self.views(), *(self.out / name for name, wanted in optional if wanted)]

    def check(self) -> None:
        """Raises an `OptionError` where it would overwrite its own input."""
        single = self.targets()[0]
        if single.exists() and self.image.exists() and single.samefile(self.image):
            raise OptionError(f"The result would overwrite the input {self.image}.", "Name another folder with --out.")

    def run(
        self, rt: Runtime, camera: Camera, elevation: float, making: dict[str, Any], drawing: dict[str, Any],
        exact: bool, progress: Progress,
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

        Returns:
            What was written.
        """
        scene = rt.reconstruct(self.image, **making)
        frames = scene.orbit(self.orbit, elevation, **drawing) if self.orbit else ()
        turning = scene.orbit(self.frames, elevation, **drawing) if self.turntable else ()
        surface = scene.mesh(projected=drawing["projected"]) if self.mesh else None
        first = scene.render(camera, exact=exact, **drawing)
        single, *rest = self.targets()
        save_png(first.to_uint8(), single)
        for frame, path in zip(progress(frames, self.orbit, "orbit"), self.views(), strict=True):
            save_png(frame.to_uint8(), path)
        if self.orbit:
            remove_stale(self.out, f"{glob.escape(self.stem)}_orbit_[0-9]*.png", self.views())
        optional = iter(rest[len(self.views()) :])
        if self.turntable:
            save_animation([f.to_uint8() for f in progress(turning, self.frames, "turntable")], next(optional))
        if surface is not None:
            surface.save(next(optional))
        if self.save_input and scene.source is not None:
            save_png(scene.source.to_uint8(), next(optional))
        return [single, *rest]


def jobs_of(images: Sequence[Path], turntable: str, **options: Any) -> list[Job]:
    """One job for each image; folders stand for the images in them.

    Raises:
        OptionError: two images would write the same files, a folder holds none, or the turntable's ending is unknown.
    """
    ending = f".{turntable.lower().lstrip('.')}" if turntable else ""
    if ending and ending not in ANIMATIONS:
        raise OptionError(f"A turntable cannot be written as {turntable!r}.", f"Use {', '.join(ANIMATIONS)}.")
    jobs = [Job(image, turntable=ending, **options) for image in _expanded(images)]
    stems: dict[str, Path] = {}
    for job in jobs:
        if job.stem in stems:
            raise OptionError(
                f"{stems[job.stem]} and {job.image} would both write {job.stem}.png.", "Render them into two folders."
            )
        stems[job.stem] = job.image
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

"""The runtime: a loaded bundle on a backend, turning images into scenes and images of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .arguments import image_sides, whole_number
from .array_types import Array
from .backends import open_backend
from .bundle import default_bundle, load_variant
from .diffusion.noise import seeds_of
from .diffusion.plan import SamplingPlan
from .errors import ClosedError, ImageError, OptionError, UntrainedWarning, warn_caller
from .geometry.cameras import Camera
from .preprocessing import ImageBatch, ImageInput, PreparedImage, prepare
from .preprocessing.matting import Matting
from .processes import check_process, hold_over_fork
from .profiling import stage
from .scene import MAX_SAMPLES, Scene

DEFAULT_MEMORY = 256 << 20
_LEAST_MEMORY = 16 << 20


class Runtime:
    """A loaded bundle. Safe to be shared by threads; a context manager.

    Args:
        bundle: its folder; None for the one that ships with the package.
        backend: "auto" (tensorrt, cuda or cpu), "tensorrt", "cuda", "openvino" or "cpu".
        precision: a variant of the bundle; None for its first.
        threads: computing threads on a CPU; None for one per core.
        memory_limit: bytes that drawing a view may take beside the loaded model and the image itself; None for
            256 MiB. A lower limit costs time, not quality.

        background_model: for background="rembg": a name that rembg knows, or the path of an ONNX file; None for u2net.

    Attributes:
        bundle: what was loaded.
        precision: its variant that runs.
        backend: where it runs.
        reason: in words, why that backend was taken.

    Raises:
        BundleError, BackendError, OptionError: see `runtime.errors`.
    """

    def __init__(
        self,
        bundle: str | Path | None = None,
        backend: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
        memory_limit: int | None = None,
        background_model: str | Path | None = None,
    ) -> None:
        limit = DEFAULT_MEMORY if memory_limit is None else memory_limit
        self.memory_limit = whole_number(
            "memory_limit", limit, _LEAST_MEMORY, remedy="That is 16 MiB; leave it out for 256 MiB."
        )
        self.bundle = load_variant(default_bundle() if bundle is None else bundle, precision)
        self.precision = self.bundle.check_precision(precision)
        self._schedule = self.bundle.schedule
        self.backend, self.reason = open_backend(backend, self.bundle, self.precision, threads)
        self._closed, self._process = False, os.getpid()
        hold_over_fork(self.backend)
        gpu = ("CUDAExecutionProvider",) if self.backend.name in ("cuda", "tensorrt") else ()
        self._matting = Matting(background_model, (*gpu, "CPUExecutionProvider"))
        if not self.bundle.trained:
            warn_caller(
                f"The bundle {self.bundle.name!r} is untrained: what it reconstructs means nothing.", UntrainedWarning
            )

    @property
    def has_background_model(self) -> bool:
        """Whether `background="rembg"` works without a download."""
        return self._matting.is_present()

    @overload
    def reconstruct(self, image: ImageBatch, *args: Any, **options: Any) -> list[Scene]: ...
    @overload
    def reconstruct(self, image: ImageInput, *args: Any, **options: Any) -> Scene: ...
    def reconstruct(
        self,
        image: ImageInput | ImageBatch,
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        sampler: str | None = None,
        background: str = "auto",
        mask: ImageInput | ImageBatch | None = None,
        silhouette: bool = False,
    ) -> Scene | list[Scene]:
        """Coarse stage, diffusion and inverse wavelet transform: paid once, then looked at from anywhere.

        Args:
            image: a path, bytes, a file object, a PIL image or an array, as in `preprocessing.to_rgba`; or a list.
            steps: sampling steps, 1 to T; None for the bundle's default.
            seed: of the diffusion's noise; for a list one for all, or one each.
            sampler: "ddim", "dpmpp_2m", "euler" or "ddpm"; None for the bundle's default.
            background: "auto", "keep", "plain" or "rembg", as in `preprocessing.prepare`.
            mask: of the object, of any kind that an image may be; for a list a list.
            silhouette: holds the object to the outline that the image shows: nothing stands out of it, and what is
                hazy inside becomes solid. The triplane stays as it is.

        Returns:
            A scene; a list gives a list. An item's scene does not depend on its neighbours in the list.
        """
        scenes = self._scenes(image, steps, seed, sampler, background, mask, silhouette)
        return list(scenes) if isinstance(image, list | tuple) else next(scenes)

    def render(
        self,
        image: ImageInput | ImageBatch,
        camera: Camera | None = None,
        image_size: int | tuple[int, int] = 128,
        num_samples: int = 64,
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        sampler: str | None = None,
        exact: bool = False,
        projected: bool = False,
        background: str = "auto",
        mask: ImageInput | ImageBatch | None = None,
        silhouette: bool = False,
    ) -> NDArray[np.uint8]:
        """Reconstructs and draws in one call.

        Args:
            image: as in `reconstruct`.
            camera: None for the canonical one, from where the image was taken.
            image_size: side of a square image, or (height, width), in pixels.
            num_samples: samples per ray.
            steps: as in `reconstruct`.
            seed: as in `reconstruct`.
            sampler: as in `reconstruct`.
            exact: queries every sample of every ray, many times slower.
            projected: gives what the input image shows the image's own pixels.
            background: as in `reconstruct`.
            mask: as in `reconstruct`.
            silhouette: as in `reconstruct`.

        Returns:
            (H, W, 3) uint8, over white; for a list (B, H, W, 3), the same pixels as one by one.
        """
        image_sides(image_size)
        whole_number("num_samples", num_samples, 1, MAX_SAMPLES)

        def view(scene: Scene) -> NDArray[np.uint8]:
            return scene.render(camera, image_size, num_samples, exact=exact, projected=projected).to_uint8()

        # A scene is drawn when it is made, and gone before the next is: a list takes no more memory than its group.
        drawn = list(map(view, self._scenes(image, steps, seed, sampler, background, mask, silhouette)))
        return np.stack(drawn) if isinstance(image, list | tuple) else drawn[0]

    def scene(self, triplane: Array) -> Scene:
        """A scene of a triplane (3, C, 2R, 2R) that was made elsewhere.

        Raises:
            OptionError: it has another shape.
        """
        bundle = self.bundle
        shape = (3, bundle.channels, 2 * bundle.resolution, 2 * bundle.resolution)
        if np.shape(triplane) != shape:
            raise OptionError(f"This bundle's triplanes have shape {shape}, not {np.shape(triplane)}.", "Change it.")
        return self._scene(np.array(triplane, np.float32))

    def plan(self, steps: int | None = None, sampler: str | None = None) -> SamplingPlan:
        """Plans a sampling run; None takes the bundle's default.

        Raises:
            OptionError: an unknown sampler, or steps out of range.
        """
        bundle = self.bundle
        return SamplingPlan.make(
            bundle.default_sampler if sampler is None else sampler,
            bundle.default_steps if steps is None else steps,
            self._schedule,
            bundle.channels,
            bundle.resolution,
        )

    def close(self) -> None:
        """Gives the backend's memory back. Scenes made by this runtime cannot be drawn any more."""
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():  # Threads and devices belong to the process that opened them.
                self.backend.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _scenes(
        self,
        image: ImageInput | ImageBatch,
        steps: int | None,
        seed: int | Sequence[int],
        sampler: str | None,
        background: str,
        mask: ImageInput | ImageBatch | None,
        silhouette: bool,
    ) -> Iterator[Scene]:
        self._check_usable()
        several = isinstance(image, list | tuple)
        images: list[Any] = [*image] if isinstance(image, list | tuple) else [image]
        if not images:
            raise ImageError("The list of images is empty.", "Give at least one.")
        masks: list[Any] = list(mask) if several and isinstance(mask, list | tuple) else [mask] * len(images)
        if len(masks) != len(images) or (several and mask is not None and not isinstance(mask, list | tuple)):
            raise OptionError(f"There are {len(images)} images, and not one mask for each.", "Give a list of masks.")
        plan, seeds = self.plan(steps, sampler), seeds_of(seed, len(images))
        with stage("image"):
            prepared = self._prepared(images, masks, background)
        for start in range(0, len(prepared), self.backend.largest_group):
            group = slice(start, start + self.backend.largest_group)
            pixels = np.stack([item.pixels for item in prepared[group]])
            made = self.backend.triplanes(pixels, plan, seeds[group])
            for item, (values, key) in zip(prepared[group], made, strict=True):
                yield self._scene(values, key, item, silhouette)

    def _scene(
        self,
        triplane: Array,
        key: int | None = None,
        source: PreparedImage | None = None,
        silhouette: bool = False,
    ) -> Scene:
        """A scene of a triplane that nobody else writes to."""
        triplane.setflags(write=False)
        return Scene(
            self.backend,
            triplane,
            self.memory_limit,
            self.bundle.density_scale,
            self.bundle.sensitivity,
            key,
            source,
            self.bundle.surface_logit,
            silhouette,
        )

    def _prepared(self, images: list[Any], masks: list[Any], background: str) -> list[PreparedImage]:
        """Each as the model wants it, side by side: Pillow works without the interpreter's lock."""
        size, ratio = self.bundle.image_size, self.bundle.framing
        names = [f"Image {n} of {len(images)}: " if len(images) > 1 else "" for n in range(1, len(images) + 1)]

        def prepare_one(name: str, image: Any, mask: Any) -> PreparedImage:
            try:
                return prepare(image, size, ratio, background, mask, self._matting)
            except ImageError as error:
                raise ImageError(f"{name}{error.cause}", error.remedy) from error

        workers = self.backend.workers if len(images) > 1 else None
        run = map if workers is None else workers.map
        found = list(run(prepare_one, names, images, masks))
        for name, item in zip(names, found, strict=True):
            for text, category in item.notes:
                warn_caller(f"{name}{text}", category)
        return found

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("This runtime is closed.", "Load a new one with runtime.load().")
        check_process(self._process)

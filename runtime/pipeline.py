"""The runtime: a loaded bundle on a backend, turning pictures into scenes and pictures of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import overload

import numpy as np
from numpy.typing import NDArray

from .arguments import image_sides, whole_number
from .backends import open_backend
from .bundle import default_bundle, load_variant
from .diffusion.noise import seeds_of
from .diffusion.plan import SamplingPlan
from .errors import ClosedError, ImageError, OptionError, UntrainedWarning, warn_caller
from .geometry.cameras import Camera
from .preprocessing import ImageBatch, ImageInput, prepare_image
from .profiling import stage
from .scene import MAX_SAMPLES, Scene

DEFAULT_MEMORY = 256 << 20
_LEAST_MEMORY = 16 << 20

Array = NDArray[np.float32]


class Runtime:
    """A loaded bundle. Safe to be shared by threads; a context manager.

    Args:
        bundle: its folder; None for the one that ships with the package.
        backend: "auto" (tensorrt, cuda or cpu), "tensorrt", "cuda", "openvino" or "cpu".
        precision: a variant of the bundle; None for its first.
        threads: computing threads on a CPU; None for one per core.
        memory_limit: bytes that drawing a view may take beside the loaded model and the picture itself; None for
            256 MiB. A lower limit costs time, not quality.

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
    ) -> None:
        limit = DEFAULT_MEMORY if memory_limit is None else memory_limit
        self.memory_limit = whole_number(
            "memory_limit", limit, _LEAST_MEMORY, remedy="That is 16 MiB; leave it out for 256 MiB."
        )
        self.bundle = load_variant(default_bundle() if bundle is None else bundle, precision)
        self.precision = self.bundle.check_precision(precision)
        self._schedule = self.bundle.schedule
        self.backend, self.reason = open_backend(backend, self.bundle, self.precision, threads)
        self._closed = False
        if not self.bundle.trained:
            warn_caller(
                f"The bundle {self.bundle.name!r} is untrained: what it reconstructs means nothing.", UntrainedWarning
            )

    @overload
    def reconstruct(
        self,
        image: ImageBatch,
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        sampler: str | None = None,
    ) -> list[Scene]: ...
    @overload
    def reconstruct(
        self,
        image: ImageInput,
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        sampler: str | None = None,
    ) -> Scene: ...
    @overload
    def reconstruct(
        self,
        image: ImageInput | ImageBatch,
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        sampler: str | None = None,
    ) -> Scene | list[Scene]: ...
    def reconstruct(
        self,
        image: ImageInput | ImageBatch,
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        sampler: str | None = None,
    ) -> Scene | list[Scene]:
        """Coarse stage, diffusion and inverse wavelet transform: paid once, then looked at from anywhere.

        Args:
            image: a path, bytes, a PIL image or an array, as in `images.prepare_image`; or a list of them.
            steps: sampling steps, 1 to T; None for the bundle's default.
            seed: of the diffusion's noise; for a list one for all, or one each.
            sampler: "ddim", "dpmpp_2m", "euler" or "ddpm"; None for the bundle's default.

        Returns:
            A scene; a list gives a list. An item's scene does not depend on its neighbours in the list.
        """
        if isinstance(image, list | tuple):
            return list(self._scenes(list(image), steps, seed, sampler))
        return next(self._scenes([image], steps, seed, sampler))

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
    ) -> NDArray[np.uint8]:
        """Reconstructs and draws in one call.

        Args:
            image, steps, seed, sampler: as in `reconstruct`.
            camera, image_size, num_samples, exact: as in `Scene.render`.

        Returns:
            (H, W, 3) uint8, over white; for a list (B, H, W, 3), the same pixels as one by one.
        """
        image_sides(image_size)
        whole_number("num_samples", num_samples, 1, MAX_SAMPLES)
        images = list(image) if isinstance(image, list | tuple) else [image]

        def view(scene: Scene) -> NDArray[np.uint8]:
            return scene.render(camera, image_size, num_samples, exact=exact).to_uint8()

        # A scene is drawn when it is made, and gone before the next is: a list takes no more memory than its group.
        drawn = list(map(view, self._scenes(images, steps, seed, sampler)))
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
            self.backend.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _scenes(
        self, images: list[ImageInput], steps: int | None, seed: int | Sequence[int], sampler: str | None
    ) -> Iterator[Scene]:
        if self._closed:
            raise ClosedError("This runtime is closed.", "Load a new one with runtime.load().")
        if not images:
            raise ImageError("The list of pictures is empty.", "Give at least one.")
        plan, seeds = self.plan(steps, sampler), seeds_of(seed, len(images))
        with stage("image"):
            prepared = self._prepared(images)
        for start in range(0, len(prepared), self.backend.largest_group):
            group = slice(start, start + self.backend.largest_group)
            for values, key in self.backend.triplanes(np.stack(prepared[group]), plan, seeds[group]):
                yield self._scene(values, key)

    def _scene(self, triplane: Array, key: int | None = None) -> Scene:
        """A scene of a triplane that nobody else writes to."""
        triplane.setflags(write=False)
        bundle = self.bundle
        return Scene(self.backend, triplane, self.memory_limit, bundle.density_scale, bundle.sensitivity, key)

    def _prepared(self, images: list[ImageInput]) -> list[Array]:
        """Each as the model wants it: (3, S, S). Pillow works without the interpreter's lock."""
        workers = self.backend.workers if len(images) > 1 else None
        at_once = map if workers is None else workers.map
        return list(at_once(lambda each: prepare_image(each, self.bundle.image_size, self.bundle.framing), images))

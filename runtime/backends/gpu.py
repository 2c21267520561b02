"""A GPU behind the runtime: the device loop for triplanes, the renderer graph for fields; a loop for each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError, ClosedError
from ..grid import Field
from .base import Array
from .device import Buffer, Device
from .loop import DeviceLoop, Launcher

# A view of 128x128 pixels with 64 samples a ray is 16 parts of this size.
LARGEST_POINTS = 65_536


@dataclass
class _Thread:
    """What one thread has on the device; `points` and `results` are made when the first field is asked."""

    device: Device
    loop: DeviceLoop
    launcher: Launcher
    triplane: Array | None = None
    buffers: dict[str, Buffer] | None = None


class DeviceBackend:
    """Graphs on a GPU, however they are launched. Every thread has a stream, buffers and a launcher of its own.

    Args:
        name: "tensorrt" or "cuda"; reason: why it was taken.
        bundle: verified; precision: one of its variants.
        open_device: makes a device, in the thread that will use it.
        open_launcher: makes a launcher in that device's stream.
        largest_batch, largest_points: the most that a launch may take.

    Raises:
        BackendError: the first device or launcher does not open.
    """

    workers: Executor | None = None
    threads = 1

    def __init__(
        self,
        name: str,
        reason: str,
        bundle: Bundle,
        precision: str,
        open_device: Callable[[], Device],
        open_launcher: Callable[[Device], Launcher],
        largest_batch: int = 8,
        largest_points: int = LARGEST_POINTS,
    ) -> None:
        self.name, self.reason = name, reason
        self._bundle, self._largest_batch, self._largest_points = bundle, largest_batch, largest_points
        condition = bundle.graph(precision, "coarse").outputs[1]
        self._width = int(condition.shape[2])
        self._open_device, self._open_launcher = open_device, open_launcher
        self._local, self._lock = threading.local(), threading.Lock()
        self._threads: list[_Thread] = []
        self._closed = False
        # What cannot start should say so when the runtime is loaded, not at the first picture.
        self._here()

    @property
    def fallback(self) -> str | None:
        """Why this thread's loop runs without a captured graph; None where it is captured."""
        return self._here().loop.fallback

    def triplanes(self, images: Array, noise: Array, table: NDArray[np.float64]) -> Array:
        loop = self._here().loop
        parts = self._groups(len(images))
        return np.concatenate([loop.triplanes(images[part], noise[:, part], table) for part in parts])

    def generate(self, images: Array, noise: Array, table: NDArray[np.float64]) -> tuple[Array, Array]:
        loop = self._here().loop
        made = [loop.bands(images[part], noise[:, part], table) for part in self._groups(len(images))]
        return np.concatenate([ll for ll, _ in made]), np.concatenate([details for _, details in made])

    def field(self, triplane: Array) -> Field:
        def ask(points: Array) -> tuple[Array, Array]:
            rgb, density = np.empty((len(points), 3), np.float32), np.empty(len(points), np.float32)
            for start in range(0, len(points), self._largest_points):
                part = slice(start, start + self._largest_points)
                rgb[part], density[part] = self._query(triplane, points[part])
            return rgb, density

        return ask

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for thread in self._threads:
                for buffer in (thread.buffers or {}).values():
                    thread.device.free(buffer.address)
                thread.loop.close()
            self._threads.clear()

    def _groups(self, count: int) -> list[slice]:
        return [slice(start, start + self._largest_batch) for start in range(0, count, self._largest_batch)]

    def _query(self, triplane: Array, points: Array) -> tuple[Array, Array]:
        here, count = self._here(), len(points)
        buffers = self._point_buffers(here, triplane.shape)
        # Views of a scene come one after another: the planes stay where they are until another scene is asked.
        if here.triplane is not triplane:
            here.device.upload(buffers["triplane"], triplane[None])
            here.triplane = triplane
        part = {
            "triplane": buffers["triplane"],
            "points": Buffer(buffers["points"].address, (1, count, 3)),
            "rgb": Buffer(buffers["rgb"].address, (1, count, 3)),
            "density": Buffer(buffers["density"].address, (1, count, 1)),
        }
        here.device.upload(part["points"], points[None])
        here.launcher.launch("renderer", part)
        return here.device.download(part["rgb"])[0], here.device.download(part["density"])[0, :, 0]

    def _point_buffers(self, here: _Thread, planes: tuple[int, ...]) -> dict[str, Buffer]:
        if here.buffers is None:
            most = self._largest_points
            shapes = {
                "triplane": (1, *planes),
                "points": (1, most, 3),
                "rgb": (1, most, 3),
                "density": (1, most, 1),
            }
            made: dict[str, Buffer] = {}
            try:
                for name, shape in shapes.items():
                    made[name] = Buffer(here.device.allocate(4 * int(np.prod(shape))), shape)
            except BackendError:
                for buffer in made.values():
                    here.device.free(buffer.address)
                raise
            here.buffers = made
        return here.buffers

    def _here(self) -> _Thread:
        """This thread's part, made when it first asks."""
        if self._closed:
            raise ClosedError("The runtime of this scene is closed.", "Draw inside the runtime's lifetime.")
        found: _Thread | None = getattr(self._local, "thread", None)
        if found is None:
            device = self._open_device()
            try:
                launcher = self._open_launcher(device)
            except BackendError:
                device.close()
                raise
            loop = DeviceLoop(device, launcher, self._bundle.channels, self._bundle.resolution, self._width)
            found = self._local.thread = _Thread(device, loop, launcher)
            with self._lock:
                self._threads.append(found)
        return found

"""A GPU behind the runtime: the device loop for triplanes, the renderer graph for fields."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..bundle import CPU_ONLY, Bundle
from ..errors import BackendError, ClosedError
from ..grid import Field
from .base import Array
from .device import Buffer, Device
from .loop import DeviceLoop, Launcher

# A view of 128x128 pixels with 64 samples a ray is 16 parts of this size.
LARGEST_POINTS = 65_536


_Result = TypeVar("_Result")


@dataclass
class _Part:
    """What one call at a time has on the device; `buffers` are made when the first field is asked.

    All of it happens in a thread of its own: ONNX Runtime keeps captured graphs by thread, and a caller's current
    device stays what it was.
    """

    worker: ThreadPoolExecutor
    device: Device
    loop: DeviceLoop
    launcher: Launcher
    triplane: Array | None = None
    buffers: dict[str, Buffer] | None = None

    def close(self) -> None:
        try:
            self.worker.submit(self._close).result()
        finally:
            self.worker.shutdown()

    def _close(self) -> None:
        try:
            for buffer in (self.buffers or {}).values():
                self.device.free(buffer.address)
        finally:
            self.loop.close()


class DeviceBackend:
    """Graphs on a GPU, however they are launched.

    Streams, buffers and launchers are lent: a call takes a set that is free, or opens one, and puts it back. There are
    as many as calls were ever under way at once.

    Args:
        name: "tensorrt" or "cuda"; reason: why it was taken.
        bundle: verified; precision: one of its variants.
        open_device: makes a device.
        open_launcher: makes a launcher in that device's stream.
        largest_batch, largest_points: the most that a launch may take.

    Raises:
        BackendError: the first device or launcher does not open, or the precision is for CPUs alone.
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
        if precision == CPU_ONLY:
            raise BackendError(f"{CPU_ONLY} runs on a CPU alone.", "Use precision='int8'.")
        self.name, self.reason = name, reason
        self._bundle, self.largest_group, self._largest_points = bundle, largest_batch, largest_points
        condition = bundle.graph(precision, "coarse").outputs[1]
        self._width = int(condition.shape[2])
        self._open_device, self._open_launcher = open_device, open_launcher
        self._changed = threading.Condition()
        self._free: list[_Part] = []
        self._lent = 0
        self._closed = False
        # What cannot start should say so when the runtime is loaded, not at the first picture.
        self._lend(lambda part: None)

    @property
    def fallback(self) -> str | None:
        """Why the loop that was used last runs without a captured graph where it should; None otherwise."""
        return self._lend(lambda part: part.loop.fallback)

    def triplanes(self, images: Array, noise: Array, table: NDArray[np.float64]) -> Array:
        groups = self._groups(len(images))
        made = self._lend(lambda part: [part.loop.triplanes(images[g], noise[:, g], table) for g in groups])
        return np.concatenate(made)

    def generate(self, images: Array, noise: Array, table: NDArray[np.float64]) -> tuple[Array, Array]:
        groups = self._groups(len(images))
        made = self._lend(lambda part: [part.loop.bands(images[g], noise[:, g], table) for g in groups])
        return np.concatenate([ll for ll, _ in made]), np.concatenate([details for _, details in made])

    def field(self, triplane: Array) -> Field:
        def ask(points: Array) -> tuple[Array, Array]:
            rgb, density = np.empty((len(points), 3), np.float32), np.empty(len(points), np.float32)

            def query(part: _Part) -> None:
                for start in range(0, len(points), self._largest_points):
                    some = slice(start, start + self._largest_points)
                    rgb[some], density[some] = self._query(part, triplane, points[some])

            self._lend(query)
            return rgb, density

        return ask

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            while self._lent:
                self._changed.wait()
            parts, self._free = self._free, []
        # They hold what every part is made of, engines above all.
        del self._open_device, self._open_launcher
        with ExitStack() as closing:
            for part in parts:
                closing.callback(part.close)

    def _groups(self, count: int) -> list[slice]:
        return [slice(start, start + self.largest_group) for start in range(0, count, self.largest_group)]

    def _query(self, part: _Part, triplane: Array, points: Array) -> tuple[Array, Array]:
        count = len(points)
        buffers = self._point_buffers(part, triplane.shape)
        # Views of a scene come one after another: the planes stay where they are until another scene is asked.
        if part.triplane is not triplane:
            part.device.upload(buffers["triplane"], triplane[None])
            part.triplane = triplane
        bound = {
            "triplane": buffers["triplane"],
            "points": Buffer(buffers["points"].address, (1, count, 3)),
            "rgb": Buffer(buffers["rgb"].address, (1, count, 3)),
            "density": Buffer(buffers["density"].address, (1, count, 1)),
        }
        part.device.upload(bound["points"], points[None])
        part.launcher.bind("renderer", bound)()
        return part.device.download(bound["rgb"])[0], part.device.download(bound["density"])[0, :, 0]

    def _point_buffers(self, part: _Part, planes: tuple[int, ...]) -> dict[str, Buffer]:
        if part.buffers is None:
            most = self._largest_points
            shapes = {"triplane": (1, *planes), "points": (1, most, 3), "rgb": (1, most, 3), "density": (1, most, 1)}
            made: dict[str, Buffer] = {}
            try:
                for name, shape in shapes.items():
                    made[name] = Buffer(part.device.allocate(4 * int(np.prod(shape))), shape)
            except BackendError:
                for buffer in made.values():
                    part.device.free(buffer.address)
                raise
            part.buffers = made
        return part.buffers

    def _lend(self, work: Callable[[_Part], _Result]) -> _Result:
        """`work` with a part that no other call uses meanwhile, in the part's thread."""
        with self._borrowed() as part:
            return part.worker.submit(copy_context().run, work, part).result()

    @contextmanager
    def _borrowed(self) -> Iterator[_Part]:
        """A part that no other call uses meanwhile."""
        with self._changed:
            if self._closed:
                raise ClosedError("The runtime of this scene is closed.", "Draw inside the runtime's lifetime.")
            self._lent += 1
            part = self._free.pop() if self._free else None
        try:
            if part is None:
                part = self._opened()
            yield part
        finally:
            with self._changed:
                self._lent -= 1
                if part is not None:
                    self._free.append(part)
                self._changed.notify_all()

    def _opened(self) -> _Part:
        worker = ThreadPoolExecutor(1)
        try:
            return worker.submit(self._open, worker).result()
        except BaseException:
            worker.shutdown()
            raise

    def _open(self, worker: ThreadPoolExecutor) -> _Part:
        device = self._open_device()
        try:
            launcher = self._open_launcher(device)
        except BaseException:
            device.close()
            raise
        loop = DeviceLoop(device, launcher, self._bundle.channels, self._bundle.resolution, self._width)
        return _Part(worker, device, loop, launcher)

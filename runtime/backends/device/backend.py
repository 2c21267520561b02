"""A GPU behind the runtime: the device loop for triplanes, the graphs `renderer` and `view` for fields."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ...array_types import Array
from ...bundle import CPU_ONLY, Bundle, TensorSpec
from ...diffusion.plan import SamplingPlan
from ...errors import BackendError, ClosedError
from ...geometry.rays import Rays
from ...rendering.field import Field
from ...rendering.marching import ray_table
from ..base import Planes
from .cuda import Buffer, Device
from .sampling_loop import DeviceLoop, Launcher

LARGEST_POINTS = 65_536
# A view of 128x128 pixels is four parts of this size. So many rays of so many samples are half a million points, whose
# hidden layers take a quarter of a gigabyte each in float32.
LARGEST_RAYS, MOST_SAMPLES = 4096, 128
# Of less alpha a drawn depth is rounding: in a graph 1 - exp(-x) of a small x is a multiple of 6e-8.
_SEEN = 1e-5
# Their sizes change from call to call: they are never captured.
DYNAMIC_SHAPE_GRAPHS = ("renderer", "view")


_Result = TypeVar("_Result")


@dataclass
class _Worker:
    """What one call at a time has on the device; `buffers` are made when the first field is asked, `sent` is in them.

    All of it happens in a thread of its own: ONNX Runtime keeps captured graphs by thread, and a caller's current
    device stays what it was.
    """

    worker: ThreadPoolExecutor
    device: Device
    loop: DeviceLoop
    launcher: Launcher
    buffers: dict[str, Buffer] | None = None
    sent: dict[str, Array] = field(default_factory=dict)

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
        name: "tensorrt" or "cuda".
        bundle: verified.
        precision: one of its variants.
        open_device: makes a device.
        open_launcher: makes a launcher in that device's stream.
        largest_batch: the most items that a launch may take.
        largest_points: the most points.
        largest_rays: the most rays.
        most_samples: of a ray that is drawn in one launch.

    Raises:
        BackendError: the first device or launcher does not open, or the precision is for CPUs alone.
    """

    workers: Executor | None = None
    threads = 1

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        precision: str,
        open_device: Callable[[], Device],
        open_launcher: Callable[[Device], Launcher],
        largest_batch: int = 8,
        largest_points: int = LARGEST_POINTS,
        largest_rays: int = LARGEST_RAYS,
        most_samples: int = MOST_SAMPLES,
    ) -> None:
        if precision == CPU_ONLY:
            raise BackendError(f"{CPU_ONLY} runs on a CPU alone.", "Use precision='int8'.")
        self.name = name
        self._bundle, self.largest_group = bundle, largest_batch
        self.most = {"points": largest_points, "rays": largest_rays, "samples": most_samples}
        self._graphs = {name: bundle.graph(precision, name) for name in DYNAMIC_SHAPE_GRAPHS}
        condition = bundle.graph(precision, "coarse").outputs[1]
        self._width = int(condition.shape[2])
        self._open_device, self._open_launcher = open_device, open_launcher
        self._changed = threading.Condition()
        self._free: list[_Worker] = []
        self._in_use = 0
        self._closed = False
        # What cannot start should say so when the runtime is loaded, not at the first image.
        self.run_on_worker(lambda part: None)

    @property
    def fallback(self) -> str | None:
        """Why the loop that was used last runs without a captured graph where it should; None otherwise."""
        return self.run_on_worker(lambda part: part.loop.fallback)

    def triplanes(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> list[Planes]:
        groups = _slices(len(images), self.largest_group)
        made = self.run_on_worker(lambda part: [part.loop.triplanes(images[g], plan, seeds[g]) for g in groups])
        return [planes for group in made for planes in group]

    def generate(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> tuple[Array, Array]:
        groups = _slices(len(images), self.largest_group)
        made = self.run_on_worker(lambda part: [part.loop.bands(images[g], plan, seeds[g]) for g in groups])
        return np.concatenate([ll for ll, _ in made]), np.concatenate([details for _, details in made])

    def field(self, triplane: Array, key: int | None = None) -> Field:
        return _DeviceField(self, triplane, key)

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            while self._in_use:
                self._changed.wait()
            parts, self._free = self._free, []
        # They hold what every part is made of, engines above all.
        del self._open_device, self._open_launcher
        with ExitStack() as closing:
            for part in parts:
                closing.callback(part.close)

    def launched(self, part: _Worker, graph: str, key: int | None, **inputs: Array) -> dict[str, Array]:
        """Runs a graph whose sizes change.

        Args:
            part: lent to the caller.
            graph: its name.
            key: of the triplane among the inputs, as in `Planes`.
            inputs: by name; they may lack leading axes of 1.

        Returns:
            Outputs by name.
        """
        buffers, bound, sizes = self._buffers(part), {}, {"batch": 1}
        for spec in self._graphs[graph].inputs:
            given = inputs[spec.name]
            shape = (1,) * (len(spec.shape) - given.ndim) + given.shape
            sizes |= {name: size for name, size in zip(spec.shape, shape, strict=True) if isinstance(name, str)}
            bound[spec.name] = Buffer(buffers[spec.name].address, shape)
            made = part.loop.kept(key) if spec.name == "triplane" else None
            if made is not None:
                bound[spec.name] = Buffer(made.address, shape)
            elif part.sent.get(spec.name) is not given:
                # Parts of a view, and views of a scene, come one after another: what they share stays where it is.
                part.device.upload(bound[spec.name], given.reshape(shape))
                part.sent[spec.name] = given
        outputs = self._graphs[graph].outputs
        for spec in outputs:
            bound[spec.name] = Buffer(buffers[spec.name].address, _sized(spec, sizes))
        part.launcher.bind(graph, bound)()
        return {spec.name: part.device.download(bound[spec.name]) for spec in outputs}

    def _buffers(self, part: _Worker) -> dict[str, Buffer]:
        """Room for the largest inputs and outputs of both graphs that change; they have the triplane's in common."""
        if part.buffers is None:
            specs = {spec.name: spec for graph in self._graphs.values() for spec in (*graph.inputs, *graph.outputs)}
            most = self.most | {"batch": 1}
            made: dict[str, Buffer] = {}
            try:
                for name, spec in specs.items():
                    shape = _sized(spec, most)
                    made[name] = Buffer(part.device.allocate(4 * math.prod(shape)), shape)
            except BackendError:
                for buffer in made.values():
                    part.device.free(buffer.address)
                raise
            part.buffers = made
        return part.buffers

    def run_on_worker(self, work: Callable[[_Worker], _Result]) -> _Result:
        """`work` with a part that no other call uses meanwhile, in the part's thread."""
        with self._acquired() as part:
            return part.worker.submit(copy_context().run, work, part).result()

    @contextmanager
    def _acquired(self) -> Iterator[_Worker]:
        """A part that no other call uses meanwhile."""
        with self._changed:
            if self._closed:
                raise ClosedError("The runtime of this scene is closed.", "Draw inside the runtime's lifetime.")
            self._in_use += 1
            part = self._free.pop() if self._free else None
        try:
            if part is None:
                part = self._opened()
            yield part
        finally:
            with self._changed:
                self._in_use -= 1
                if part is not None:
                    self._free.append(part)
                self._changed.notify_all()

    def _opened(self) -> _Worker:
        worker = ThreadPoolExecutor(1)
        try:
            return worker.submit(self._open, worker).result()
        except BaseException:
            worker.shutdown()
            raise

    def _open(self, worker: ThreadPoolExecutor) -> _Worker:
        device = self._open_device()
        try:
            launcher = self._open_launcher(device)
        except BaseException:
            device.close()
            raise
        loop = DeviceLoop(device, launcher, self._bundle.channels, self._bundle.resolution, self._width)
        return _Worker(worker, device, loop, launcher)


@dataclass(frozen=True)
class _DeviceField:
    """A triplane (3, C, H, W) on a GPU, asked at points or drawn along rays: a `DrawingField`."""

    backend: DeviceBackend
    triplane: Array
    key: int | None

    @property
    def most_samples(self) -> int:
        return self.backend.most["samples"]

    def __call__(self, points: Array) -> tuple[Array, Array]:
        rgb, density = np.empty((len(points), 3), np.float32), np.empty(len(points), np.float32)

        def ask(part: _Worker) -> None:
            for some in _slices(len(points), self.backend.most["points"]):
                found = self.backend.launched(
                    part, "renderer", self.key, triplane=self.triplane, points=points[None, some]
                )
                rgb[some], density[some] = found["rgb"][0], found["density"][0, :, 0]

        self.backend.run_on_worker(ask)
        return rgb, density

    def draw(self, rays: Rays, num_samples: int) -> tuple[Array, Array, Array]:
        table = ray_table(rays, num_samples)
        samples = np.arange(num_samples, dtype=np.float32) + np.float32(0.5)
        inputs = {"triplane": self.triplane, "origin": rays.origin, "samples": samples}
        drawn = np.empty((5, table.shape[1]), np.float32)

        def draw(part: _Worker) -> None:
            for some in _slices(table.shape[1], self.backend.most["rays"]):
                found = self.backend.launched(part, "view", self.key, rays=table[:, some], **inputs)
                drawn[:, some] = found["drawn"]

        self.backend.run_on_worker(draw)
        return drawn[:3].T, drawn[3], np.where(drawn[3] > _SEEN, drawn[4], np.float32(0))


def _slices(count: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def _sized(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)

"""Coarse stage, sampling loop and inverse wavelet transform on a device, from one upload to one download.

Buffers are bound once for each shape. The first run is plain; then the launches are captured, and replayed once to
compare with it, bit for bit. Where capture fails or differs the loop stays plain, and says so.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...array_types import Array
from ...diffusion.plan import SamplingPlan
from ...errors import BackendError
from ...profiling import stage
from ..base import Planes
from .cuda import ALIGNMENT, Buffer, Device

_logger = logging.getLogger(__name__)

# Keys of results, never twice in a process.
_keys = itertools.count()
# Shapes that are kept ready: each holds its buffers and its captured graph.
_MOST_SHAPES = 4


# Puts one graph, bound to its buffers, into the stream; raises `BackendError` where it cannot.
Launch = Callable[[], None]


class Launcher(Protocol):
    """Puts graphs of the bundle into a device's stream."""

    def bind(self, graph: str, buffers: Mapping[str, Buffer]) -> Launch:
        """Binds a graph to the named buffers, which it reads and writes as often as the launch is called.

        Raises:
            BackendError: a shape is not one that the graph takes.
        """
        ...

    def capture(self, launches: Sequence[Launch]) -> Any:
        """Makes one thing of launches, all its own, that `replay` runs in their order.

        Raises:
            BackendError: it cannot be done.
        """
        ...

    def replay(self, captured: Any) -> None:
        """Puts what was captured into the stream."""
        ...

    def forget(self, captured: Any) -> None:
        """Gives what was captured back."""
        ...

    def close(self) -> None:
        """Gives back what it holds."""
        ...


@dataclass
class _BoundBuffers:
    """The buffers of one shape, the launches bound to them, and what was captured of these."""

    buffers: dict[str, Buffer]
    row_stride: int
    draw_stride: int
    launches: list[Launch] = field(default_factory=list)
    captured: Any = None
    plain: bool = False
    owned: list[int] = field(default_factory=list)
    # Seeds of the noise that it holds.
    seeds: tuple[int, ...] | None = None


class DeviceLoop:
    """The loop of one thread.

    Args:
        device: its memory and stream.
        launcher: runs graphs in that stream.
        channels: of the triplane, C.
        resolution: side of the low-resolution planes, R.
        width: the condition's channels.

    Attributes:
        fallback: why the last new shape runs without a captured graph where it should; None otherwise.
    """

    def __init__(self, device: Device, launcher: Launcher, channels: int, resolution: int, width: int) -> None:
        self._device, self._launcher = device, launcher
        self._channels, self._resolution, self._width = channels, resolution, width
        self._ready: OrderedDict[tuple[int, int, int], _BoundBuffers] = OrderedDict()
        self._kept: tuple[int, Buffer] | None = None
        self.fallback: str | None = None

    def triplanes(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> list[Planes]:
        """Reconstructs a group; arguments as in `Backend.triplanes`. A single item has a key for `kept`.

        Raises:
            BackendError: a launch failed, or values are not finite; the message names the step.
        """
        self._kept = None
        bound = self._buffers_for(len(images), plan.draws, plan.steps)
        self._fill(bound, images, plan, seeds)
        with stage("loop"):
            result = self._run(bound)
        if not np.isfinite(result).all():
            raise BackendError(
                f"{self._first_bad(bound, images, plan, seeds)} gave NaN or infinity.",
                "Use precision='float32'; if that is what ran, the weights are broken.",
            )
        if len(result) > 1:
            # Each owns its memory: one that is kept does not keep the others.
            return [Planes(planes.copy()) for planes in result]
        self._kept = (next(_keys), bound.buffers["triplane"])
        return [Planes(result[0], self._kept[0])]

    def kept(self, key: int | None) -> Buffer | None:
        """Device buffer of the `Planes` with this key if they are the last result, else None."""
        return self._kept[1] if self._kept is not None and self._kept[0] == key else None

    def bands(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> tuple[Array, Array]:
        """Reconstructs a group as far as `Backend.generate` does."""
        self.triplanes(images, plan, seeds)
        buffers = self._buffers_for(len(images), plan.draws, plan.steps).buffers
        return self._device.download(buffers["ll"]), self._device.download(buffers[f"state{plan.steps % 2}"])

    def close(self) -> None:
        """Gives every buffer and graph back."""
        with ExitStack() as closing:  # Runs them from the last to the first, whatever one of them raises.
            closing.callback(self._device.close)
            closing.callback(self._launcher.close)
            while self._ready:
                closing.callback(self._release, self._ready.popitem()[1])

    def _buffers_for(self, batch: int, draws: int, steps: int) -> _BoundBuffers:
        key = (batch, draws, steps)
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        while len(self._ready) >= _MOST_SHAPES:
            self._release(self._ready.popitem(last=False)[1])
        c, r = self._channels, self._resolution
        bands = (batch, 3, 3 * c, r, r)
        shapes = {
            "image": (batch, 3, 4 * r, 4 * r),
            "ll": (batch, 3, c, r, r),
            "condition": (batch, 3, self._width, r, r),
            **dict.fromkeys(("state0", "state1", "denoised0", "denoised1"), bands),
            "triplane": (batch, 3, c, 2 * r, 2 * r),
        }
        bound = _BoundBuffers({}, ALIGNMENT, _aligned(4 * int(np.prod(bands))))
        try:
            for name, shape in shapes.items():
                self._allocate(bound, name, shape, 4 * int(np.prod(shape)))
            self._allocate(bound, "noise", (draws, *bands), draws * bound.draw_stride)
            self._allocate(bound, "rows", (steps, 7), steps * bound.row_stride)
            bound.launches = self._bound(bound, steps)
        except BaseException:
            self._release(bound)
            raise
        self._ready[key] = bound
        return bound

    def _allocate(self, bound: _BoundBuffers, name: str, shape: tuple[int, ...], size: int) -> None:
        address = self._device.allocate(size)
        bound.owned.append(address)
        bound.buffers[name] = Buffer(address, shape)

    def _release(self, bound: _BoundBuffers) -> None:
        captured, bound.captured = bound.captured, None
        # They hold sessions, which have to go before their stream does.
        bound.launches.clear()
        with ExitStack() as freeing:
            for address in bound.owned:
                freeing.callback(self._device.free, address)
            if captured is not None:
                self._launcher.forget(captured)

    def _fill(self, bound: _BoundBuffers, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> None:
        device, buffers = self._device, bound.buffers
        device.upload(buffers["image"], images)
        if bound.seeds != tuple(seeds):
            bound.seeds = None
            for index, drawn in enumerate(plan.noise(seeds)):
                device.upload(buffers["noise"].part(index, bound.draw_stride), drawn)
            bound.seeds = tuple(seeds)
        for index, row in enumerate(plan.table.astype(np.float32)):
            device.upload(buffers["rows"].part(index, bound.row_stride), row)

    def _run(self, bound: _BoundBuffers) -> Array:
        triplane = bound.buffers["triplane"]
        if bound.captured is not None:
            self._launcher.replay(bound.captured)
            return self._device.download(triplane)
        for launch in bound.launches:
            launch()
        plain = self._device.download(triplane)
        if not bound.plain:
            self.fallback = self._capture(bound, plain)
            if self.fallback is not None:
                bound.plain = True
                _logger.warning("The sampling loop runs without a captured graph: %s", self.fallback)
        return plain

    def _capture(self, bound: _BoundBuffers, plain: Array) -> str | None:
        """Captures the launches; returns why not, where that fails or gives something else than the plain run."""
        try:
            captured = self._launcher.capture(bound.launches)
        except BackendError as error:
            return f"capture failed: {error.cause}"
        try:
            self._launcher.replay(captured)
            again = self._device.download(bound.buffers["triplane"])
        except BackendError as error:
            self._launcher.forget(captured)
            return f"replay failed: {error.cause}"
        if not np.array_equal(again, plain, equal_nan=True):
            self._launcher.forget(captured)
            return "the captured graph gave another result than the plain run"
        bound.captured = captured
        return None

    def _bound(self, bound: _BoundBuffers, steps: int) -> list[Launch]:
        """Every launch of a run, in order. The first step reads the noise itself: nothing overwrites it."""
        b, bind = bound.buffers, self._launcher.bind
        noise = b["noise"]
        start = noise.part(0, bound.draw_stride)
        launches = [bind("coarse", {"image": b["image"], "triplane_ll": b["ll"], "condition": b["condition"]})]
        for index in range(steps):
            before, after = index % 2, (index + 1) % 2
            step = {
                "noisy": b[f"state{before}"] if index else start,
                "condition": b["condition"],
                # The first row has no use for a previous prediction: any finite values do.
                "previous": b[f"denoised{before}"] if index else start,
                "noise": noise.part(min(index + 1, noise.shape[0] - 1), bound.draw_stride),
                "row": b["rows"].part(index, bound.row_stride),
                "next": b[f"state{after}"],
                "denoised": b[f"denoised{after}"],
            }
            launches.append(bind("diffusion_step", step))
        details = b[f"state{steps % 2}"]
        return [*launches, bind("assemble", {"triplane_ll": b["ll"], "details": details, "triplane": b["triplane"]})]

    def _first_bad(self, bound: _BoundBuffers, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> str:
        """Runs launch by launch and names the first whose result is not finite."""
        self._fill(bound, images, plan, seeds)
        watched = ["condition", *(f"state{(index + 1) % 2}" for index in range(plan.steps))]
        for index, (launch, name) in enumerate(zip(bound.launches, watched, strict=False)):
            launch()
            if not np.isfinite(self._device.download(bound.buffers[name])).all():
                return "The coarse stage" if index == 0 else f"Step {index} of {plan.steps}"
        return "The inverse wavelet transform"


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT

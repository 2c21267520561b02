"""TensorRT engines as a launcher: deserialised once for all threads, an execution context for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...bundle import ENGINE_GRAPHS, Bundle
from ...errors import BackendError
from ..device.backend import DYNAMIC_SHAPE_GRAPHS, LARGEST_POINTS, LARGEST_RAYS, MOST_SAMPLES, DeviceBackend
from ..device.cuda import Buffer, CudaDevice, Device, gpu_name
from ..device.sampling_loop import Launch
from .engine_file import EngineMiss, build_hint, built_by, engine_folder, engine_path, find_engine
from .installation import Flavour, find_flavour


class TensorRTLauncher:
    """Execution contexts in one stream.

    The loop's graphs have a context for each batch size, which keeps its shapes: what was captured on a context must
    not see it change. A graph whose sizes change from call to call is never captured, and has one.

    Args:
        engines: deserialised, by the names of their graphs.
        device: whose stream they run in.
        remedy: said with errors about shapes.
    """

    def __init__(self, engines: Mapping[str, Any], device: Device, remedy: str) -> None:
        self._engines, self._device, self._remedy = dict(engines), device, remedy
        self._contexts: dict[tuple[str, int], Any] = {}
        self._limits: dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for name, engine in engines.items():
            for index in range(engine.num_io_tensors):
                tensor = engine.get_tensor_name(index)
                if str(engine.get_tensor_mode(tensor)).endswith("INPUT"):
                    least, _, largest = engine.get_tensor_profile_shape(tensor, 0)
                    self._limits[name, tensor] = (tuple(least), tuple(largest))

    def bind(self, graph: str, buffers: Mapping[str, Buffer]) -> Launch:
        for name, buffer in buffers.items():
            if (graph, name) in self._limits:
                self._check(graph, name, buffer.shape, *self._limits[graph, name])
        context = self._context(graph, max(buffer.shape[0] for buffer in buffers.values() if len(buffer.shape) > 1))

        def launch() -> None:
            for name, buffer in buffers.items():
                fits = (graph, name) not in self._limits or context.set_input_shape(name, buffer.shape) is not False
                if not fits or not context.set_tensor_address(name, buffer.address):
                    raise BackendError(f"The engine of {graph!r} does not take its tensor {name!r}.", self._remedy)
            if not context.execute_async_v3(self._device.stream):
                raise BackendError(f"The engine of {graph!r} did not run.", "TensorRT's own log above says why.")

        return launch

    def capture(self, launches: Sequence[Launch]) -> Any:
        return self._device.capture(lambda: [launch() for launch in launches])

    def replay(self, captured: Any) -> None:
        self._device.replay(captured)

    def forget(self, captured: Any) -> None:
        self._device.forget(captured)

    def _context(self, graph: str, batch: int) -> Any:
        key = (graph, batch)
        if key not in self._contexts:
            engine = self._engines[graph]
            settings = engine.create_runtime_config() if hasattr(engine, "create_runtime_config") else None
            strategy = "dynamic_shapes_kernel_specialization_strategy"
            if hasattr(settings, strategy):
                # Left alone, RTX replaces kernels by better ones in the background, after they were captured; and where
                # sizes change it would compile some for each that is ever asked.
                kinds = type(getattr(settings, strategy))
                setattr(settings, strategy, kinds.NONE if graph in DYNAMIC_SHAPE_GRAPHS else kinds.EAGER)
            made = engine.create_execution_context(*(() if settings is None else (settings,)))
            if made is None:
                raise BackendError(f"The engine of {graph!r} gives no execution context.", "Is the GPU's memory full?")
            self._contexts[key] = made
        return self._contexts[key]

    def close(self) -> None:
        self._contexts.clear()
        self._engines.clear()

    def _check(
        self, graph: str, name: str, shape: tuple[int, ...], least: tuple[int, ...], largest: tuple[int, ...]
    ) -> None:
        fits = len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, largest, strict=True))
        if not fits:
            raise BackendError(
                f"Input {name!r} of {graph!r} has shape {shape}; the engine's profile goes from {least} to {largest}.",
                self._remedy,
            )


def open_tensorrt(bundle: Bundle, precision: str) -> DeviceBackend:
    """The `tensorrt` backend on the first GPU.

    Raises:
        BackendError: an engine is absent, stale or damaged, in words; or there is no TensorRT, or no GPU.
    """
    folder, remedy = engine_folder(bundle), build_hint(bundle, precision)
    flavour, gpu = find_flavour(built_by(engine_path(folder, precision, ENGINE_GRAPHS[0]))), gpu_name()
    engines = load_engines(bundle, precision, folder, flavour, gpu, remedy)

    def most(graph: str, tensor: str, axis: int) -> int:
        return int(engines[graph].get_tensor_profile_shape(tensor, 0)[2][axis])

    return DeviceBackend(
        "tensorrt",
        bundle,
        precision,
        CudaDevice,
        lambda device: TensorRTLauncher(engines, device, remedy),
        largest_batch=min(most("coarse", "image", 0), most("diffusion_step", "noisy", 0)),
        largest_points=min(LARGEST_POINTS, most("renderer", "points", 1)),
        largest_rays=min(LARGEST_RAYS, most("view", "rays", 1)),
        most_samples=min(MOST_SAMPLES, most("view", "samples", 0)),
    )


def load_engines(
    bundle: Bundle, precision: str, folder: Path, flavour: Flavour, gpu: str, remedy: str
) -> dict[str, Any]:
    """Deserialises the engines of a variant, after checking that each was built for just this.

    Args:
        bundle: verified.
        precision: one of its variants.
        folder: of the engines.
        flavour: what is installed.
        gpu: as `gpu_name` says it.
        remedy: said with errors.

    Raises:
        BackendError: an engine is missing, stale, foreign or damaged, in words.
    """
    trt = flavour.module
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engines = {}
    for name in ENGINE_GRAPHS:
        digest = hashlib.sha256(bundle.graph(precision, name).data).hexdigest()
        try:
            plan = find_engine(engine_path(folder, precision, name), digest, flavour.name, flavour.version, gpu)
        except EngineMiss as miss:
            raise BackendError(f"The engine of {name!r} in {precision} cannot be used: {miss}.", remedy) from None
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError(f"{flavour.name} {flavour.version} did not take its engine of {name!r}.", remedy)
        engines[name] = engine
    return engines

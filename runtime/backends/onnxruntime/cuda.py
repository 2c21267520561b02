"""ONNX Runtime's CUDA provider as a launcher: graphs bound to device memory, in the loop's own stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from ...bundle import ENGINE_GRAPHS, Bundle, Graph
from ...errors import BackendError
from ..device.backend import DYNAMIC_SHAPE_GRAPHS, DeviceBackend
from ..device.cuda import Buffer, CudaDevice, Device
from .session import open_session

# ONNX Runtime may keep a graph that was captured until its session ends: no more than these of each launcher.
_MOST_CAPTURED = 64
# Its run option that names a captured graph, and the name that captures and replays nothing.
_CAPTURED_ID, _NONE_CAPTURED = "gpu_graph_id", -1


@dataclass(frozen=True)
class _Bound:
    """A session with its inputs and outputs where the loop has them."""

    graph: str
    session: ort.InferenceSession
    binding: ort.IOBinding

    def __call__(self) -> None:
        self.run(_NONE_CAPTURED)

    def run(self, captured: int) -> None:
        """Runs plainly, or replays the captured graph of this number; its first run captures it."""
        options = ort.RunOptions()
        # The stream orders what follows: waiting for the device here would leave it idle.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        options.add_run_config_entry(_CAPTURED_ID, str(captured))
        try:
            self.session.run_with_iobinding(self.binding, options)
        except Exception as error:
            raise BackendError(
                f"The graph {self.graph!r} failed in ONNX Runtime ({error}).", "If memory ran out, use smaller batches."
            ) from error


class OrtLauncher:
    """A session for each graph, which captures CUDA graphs of its own: one for each binding.

    A capture of the device's stream around several sessions would record copies from host memory that ONNX Runtime
    gives back afterwards; what it captures itself is whole.

    Args:
        bundle: verified.
        precision: one of its variants.
        device: whose stream the sessions use.
        provider: of ONNX Runtime.
        kind: where its memory is, "cuda" or "cpu".

    Raises:
        BackendError: the provider did not take a graph.
        BundleError: a graph is not what the manifest says.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: str,
        device: Device,
        provider: str = "CUDAExecutionProvider",
        kind: str = "cuda",
    ) -> None:
        self._kind, self._provider = kind, provider
        self._settings: dict[str, str] = {}
        if kind == "cuda":
            # The search for the fastest convolution would run again for every new shape, inside the first request.
            self._settings = {"user_compute_stream": str(device.stream), "cudnn_conv_algo_search": "HEURISTIC"}
            # What a bundle calls float32 keeps its 24 bits.
            self._settings["use_tf32"] = "0"
        self._why_plain: str | None = None
        graphs = [bundle.graph(precision, name) for name in ENGINE_GRAPHS]
        self._sessions = {graph.name: self._opened(graph) for graph in graphs}
        self._outputs = {graph.name: {spec.name for spec in graph.outputs} for graph in graphs}
        self._captured = 0

    def bind(self, graph: str, buffers: Mapping[str, Buffer]) -> _Bound:
        session = self._sessions[graph]
        binding = session.io_binding()
        for name, buffer in buffers.items():
            bind = binding.bind_output if name in self._outputs[graph] else binding.bind_input
            bind(name, self._kind, 0, np.dtype(buffer.dtype).type, buffer.shape, buffer.address)
        return _Bound(graph, session, binding)

    def capture(self, launches: Sequence[Any]) -> list[tuple[_Bound, int]]:
        if self._why_plain is not None:
            raise BackendError(self._why_plain, "It runs as it is, only slower.")
        if self._captured + len(launches) > _MOST_CAPTURED:
            raise BackendError(
                f"ONNX Runtime keeps what it captures, and {_MOST_CAPTURED} graphs are the most here.",
                "Use fewer batch sizes and step counts.",
            )
        captured = [(bound, self._captured + 1 + index) for index, bound in enumerate(launches)]
        self._captured += len(launches)
        try:
            # The first run of a number captures: what comes after is a replay, and can be compared as one.
            self.replay(captured)
        except BaseException:
            self.forget(captured)
            raise
        return captured

    def replay(self, captured: Sequence[tuple[_Bound, int]]) -> None:
        for bound, number in captured:
            bound.run(number)

    def forget(self, captured: Sequence[tuple[_Bound, int]]) -> None:
        for bound, number in captured:
            bound.session.release_captured_graph(number)

    def close(self) -> None:
        self._sessions.clear()

    def _opened(self, graph: Graph) -> ort.InferenceSession:
        if self._kind == "cuda" and graph.name not in DYNAMIC_SHAPE_GRAPHS and self._why_plain is None:
            try:
                return open_session(graph, self._provider, 1, self._settings | {"enable_cuda_graph": "1"})
            except BackendError as error:
                self._why_plain = error.cause
        return open_session(graph, self._provider, 1, self._settings)


def open_cuda(bundle: Bundle, precision: str) -> DeviceBackend:
    """The `cuda` backend on the first GPU.

    Raises:
        BackendError: no GPU, no cuda-bindings, or a graph was not taken.
    """
    return DeviceBackend("cuda", bundle, precision, CudaDevice, lambda device: OrtLauncher(bundle, precision, device))

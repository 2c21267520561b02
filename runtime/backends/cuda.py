"""ONNX Runtime's CUDA provider as a launcher: graphs bound to device memory, in the loop's own stream."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from ..bundle import ENGINE_GRAPHS, Bundle
from ..errors import AbsentError, BackendError, install_hint
from .device import Buffer, CudaDevice, Device
from .gpu import DeviceBackend
from .onnx import open_session


class OrtLauncher:
    """A session for each graph, with inputs and outputs where the loop has them.

    Its launches are not captured: inside a caller's own capture ONNX Runtime records copies from host memory that it
    gives back afterwards, and a replay would read what is no longer there.

    Args:
        bundle: verified; precision: one of its variants.
        device: whose stream the sessions use.
        provider: of ONNX Runtime; kind: where its memory is, "cuda" or "cpu".

    Raises:
        BackendError: the provider did not take a graph.
        BundleError: a graph is not what the manifest says.
    """

    capturable = False

    def __init__(
        self,
        bundle: Bundle,
        precision: str,
        device: Device,
        provider: str = "CUDAExecutionProvider",
        kind: str = "cuda",
    ) -> None:
        settings = {}
        if kind == "cuda":
            # The search for the fastest convolution would run again for every new shape, inside the first request.
            settings = {"user_compute_stream": str(device.stream), "cudnn_conv_algo_search": "HEURISTIC"}
            # What a bundle calls float32 keeps its 24 bits.
            settings["use_tf32"] = "0"
        graphs = [bundle.graph(precision, name) for name in ENGINE_GRAPHS]
        self._sessions = {graph.name: open_session(graph, provider, 1, settings) for graph in graphs}
        self._outputs = {graph.name: {spec.name for spec in graph.outputs} for graph in graphs}
        self._kind = kind
        self._run = ort.RunOptions()
        # The stream orders what follows: waiting for the device here would leave it idle.
        self._run.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def launch(self, graph: str, buffers: Mapping[str, Buffer]) -> None:
        session = self._sessions[graph]
        binding = session.io_binding()
        for name, buffer in buffers.items():
            bind = binding.bind_output if name in self._outputs[graph] else binding.bind_input
            bind(name, self._kind, 0, np.dtype(buffer.dtype).type, buffer.shape, buffer.address)
        try:
            session.run_with_iobinding(binding, self._run)
        except Exception as error:
            raise BackendError(
                f"The graph {graph!r} failed in ONNX Runtime ({error}).",
                "If memory ran out, use smaller batches.",
            ) from error

    def close(self) -> None:
        self._sessions.clear()


def open_cuda(bundle: Bundle, precision: str, reason: str) -> DeviceBackend:
    """The `cuda` backend on the first GPU.

    Raises:
        AbsentError: no CUDA provider.
        BackendError: no GPU, or no cuda-bindings.
    """
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise AbsentError(
            f"The installed ONNX Runtime {ort.__version__} has no CUDA provider.",
            f"Use backend='cpu', or run `pip uninstall -y onnxruntime` first. {install_hint('gpu')}",
        )
    return DeviceBackend(
        "cuda", reason, bundle, precision, CudaDevice, lambda device: OrtLauncher(bundle, precision, device)
    )

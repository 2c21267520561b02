"""OpenVINO for the networks: several times faster than ONNX Runtime in int8, where the CPU has instructions for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

import numpy as np

from ..bundle import Bundle, Graph, TensorSpec
from ..errors import AbsentError, BackendError, BundleError, install_hint
from .base import Array
from .cpu import CpuBackend, Network


def openvino_network(graph: Graph, threads: int, exact: bool) -> Network:
    """A graph in OpenVINO's CPU plugin.

    The runtime runs one picture at a time, so a fixed batch of 1 saves a fifth of the time. Not so where it has to be
    exact: in OpenVINO 2026.4 a float32 denoiser of fixed shape ends in a segmentation fault.

    Args:
        graph: from a bundle; threads: computing threads.
        exact: keeps to float32 where the graph has it; otherwise OpenVINO takes bfloat16 where the CPU is fast in it.

    Raises:
        AbsentError: OpenVINO is not installed.
        BackendError: it does not take the graph.
        BundleError: the graph is not what the manifest says.
    """
    try:
        import openvino
    except ImportError as error:
        raise AbsentError(f"OpenVINO cannot be imported ({error}).", install_hint("openvino")) from None
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if exact:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        core = openvino.Core()
        network = core.read_model(graph.data)
        if not exact:
            network.reshape({s.name: [1 if isinstance(n, str) else n for n in s.shape] for s in graph.inputs})
        compiled = core.compile_model(network, "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeError and kinds of its own.
        raise BackendError(
            f"OpenVINO {openvino.__version__} cannot load the graph {graph.name!r} ({error}).",
            "Use backend='cpu'; `python -m runtime doctor` says what is installed.",
        ) from error
    for side, ports in (("inputs", compiled.inputs), ("outputs", compiled.outputs)):
        specs: tuple[TensorSpec, ...] = getattr(graph, side)
        # A tensor may go by several names.
        if len(ports) != len(specs) or any(s.name not in p.names for s, p in zip(specs, ports, strict=True)):
            raise BundleError(f"The graph {graph.name!r} has other {side} than the manifest says.", "Export it again.")
    local = threading.local()

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        # A request serves one thread at a time.
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        found = local.request.infer(dict(feeds))
        # What a request returns is overwritten by its next run.
        return [np.array(found[index]) for index in range(len(graph.outputs))]

    return run


def open_openvino(bundle: Bundle, precision: str, reason: str, threads: int) -> CpuBackend:
    """The `openvino` backend.

    Raises:
        AbsentError, BackendError, BundleError: as in `openvino_network`.
    """
    exact = not precision.startswith("int8")
    return CpuBackend("openvino", reason, bundle, precision, threads, partial(openvino_network, exact=exact))

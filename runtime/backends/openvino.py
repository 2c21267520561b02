"""OpenVINO for the networks: several times faster than ONNX Runtime in int8, where the CPU has instructions for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..array_types import Array
from ..bundle import Bundle, Graph, TensorSpec
from ..errors import AbsentError, BackendError, BundleError, install_hint
from .cpu import CpuBackend, Network


def openvino_network(graph: Graph, threads: int, exact: bool) -> Network:
    """A graph in OpenVINO's CPU plugin.

    The runtime runs one image at a time, so a fixed batch of 1 saves a fifth of the time. Not so where it has to be
    exact: in OpenVINO 2026.4 a float32 denoiser of fixed shape ends in a segmentation fault.

    Args:
        graph: from a bundle.
        threads: computing threads.
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
            _norms_by_channel(network)
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
        found = local.request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        # What a request returns is its own memory, overwritten by its next run.
        return [np.array(found[index]) for index in range(len(graph.outputs))]

    return run


def _norms_by_channel(network: Any) -> None:
    """Writes each GroupNormalization as statistics of channels, joined by groups, and a scale and shift of channels.

    OpenVINO's own needs channels first, where its convolutions have them last: each norm costs two turns of memory, a
    sixth of a medium step.
    """
    from openvino import opset13 as ops

    for node in network.get_ordered_ops():
        if node.get_type_name() != "GroupNormalization":
            continue
        x, scale, shift = (node.input_value(index) for index in range(3))
        groups, epsilon = node.get_attributes()["num_groups"], node.get_attributes()["epsilon"]
        channels = x.get_partial_shape()[1].get_length()
        # To the mean over its group, for each channel: (N, C) by (C, C).
        joined = np.kron(np.eye(groups), np.full((channels // groups,) * 2, groups / channels)).astype(np.float32)

        def by_group(values: Any, joined: Any = joined) -> Any:
            return ops.unsqueeze(ops.matmul(ops.squeeze(values, [2, 3]), joined, False, False), [2, 3])

        def over_pixels(values: Any) -> Any:
            return ops.reduce_mean(values, [2, 3], keep_dims=True)

        # Variance within channels and between them: a mean of squares less a squared mean would lose bfloat16's digits.
        mean = over_pixels(x)
        within = over_pixels(ops.power(ops.subtract(x, mean), np.float32(2)))
        middle = by_group(mean)
        variance = by_group(ops.add(within, ops.power(ops.subtract(mean, middle), np.float32(2))))
        gain = ops.divide(
            ops.reshape(scale, [1, channels, 1, 1], False), ops.sqrt(ops.add(variance, np.float32(epsilon)))
        )
        offset = ops.subtract(ops.reshape(shift, [1, channels, 1, 1], False), ops.multiply(middle, gain))
        normal = ops.add(ops.multiply(x, gain), offset)
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(normal.output(0))


def open_openvino(bundle: Bundle, precision: str, threads: int) -> CpuBackend:
    """The `openvino` backend.

    Raises:
        AbsentError, BackendError, BundleError: as in `openvino_network`.
    """
    exact = not precision.startswith("int8")
    return CpuBackend("openvino", bundle, precision, threads, partial(openvino_network, exact=exact))

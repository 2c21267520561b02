"""One ONNX graph to one serialised engine: parse, profile, build, and a report of what became of it."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.backends.tensorrt.engine_file import Profile
from runtime.backends.tensorrt.installation import Flavour
from runtime.bundle import Graph, TensorSpec
from runtime.errors import ProjectError

# Layer types that do the arithmetic; their dtype is what a precision is about.
_COMPUTING = ("CONVOLUTION", "MATRIX_MULTIPLY", "DECONVOLUTION")
Range = tuple[int, int, int]


class BuildError(ProjectError, RuntimeError):
    """A graph did not become an engine; the message names the node, the operator or the input."""


@dataclass(frozen=True)
class Built:
    """An engine and what is in it.

    Attributes:
        plan: the serialised engine.
        layers: how many layers of each (type, output dtype) the parsed network has.
        share: part of the computing layers whose output, or one of whose inputs, has the asked dtype.
    """

    plan: bytes
    layers: Mapping[tuple[str, str], int]
    share: float


def profile_of(graph: Graph, ranges: Mapping[str, Range]) -> Profile:
    """Least, best and largest shape of each input.

    Args:
        graph: whose dynamic axes have names.
        ranges: for each name (least, best, largest), at least 1 and in this order.

    Raises:
        BuildError: a range is out of order or lacks, naming the input.
    """
    profile = {}
    for spec in graph.inputs:
        for size in spec.shape:
            if isinstance(size, str):
                low, best, high = ranges.get(size, (0, 0, 0))
                if not 1 <= low <= best <= high:
                    raise BuildError(
                        f"Input {spec.name!r} of {graph.name!r}: {size} = {low}, {best}, {high} is no profile; give "
                        "least <= best <= largest, all at least 1."
                    )
        profile[spec.name] = [_at(spec, {n: r[k] for n, r in ranges.items()}) for k in range(3)]
    return profile


def build(
    graph: Graph,
    profile: Profile,
    flavour: Flavour,
    targets: Sequence[str],
    workspace: int,
    dtype: str,
    progress: Callable[[str], None],
) -> Built:
    """Builds one engine.

    Args:
        graph: from a bundle.
        profile: from `profile_of`.
        flavour: what builds.
        targets: such as "sm86", for RTX; none for the GPU that is there.
        workspace: bytes of scratch memory that layers may use.
        dtype: "FLOAT", "HALF" or "INT8", what the report counts.
        progress: called with the name of each phase.

    Raises:
        BuildError: it does not parse, a profile does not fit, or the builder finds no implementation.
    """
    trt = flavour.module
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(flavour.network_flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.data):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(f"node {e.node_name() or '?'} ({e.node_operator() or '?'}): {e.desc()}" for e in errors)
        raise BuildError(f"{graph.name!r} does not parse in {flavour.name} {flavour.version}: {said}.")
    _check_grid_samples(trt, network, graph.name)
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        # What a graph calls float32 keeps its 24 bits.
        config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.add_optimization_profile(_optimisation_profile(builder, network, profile, graph.name))
    _set_targets(trt, config, targets)
    config.progress_monitor = _monitor(trt, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = logger.last or "the builder gives no reason"
        raise BuildError(f"{graph.name!r} did not build: {said}. A larger workspace may help.")
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return Built(bytes(plan), _count(layers), _share(layers, dtype))


def _at(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    return [sizes[size] if isinstance(size, str) else size for size in spec.shape]


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Logger()


def _monitor(trt: Any, progress: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            progress(phase)

        def phase_finish(self, phase: str) -> None:
            pass

        def step_complete(self, phase: str, step: int) -> bool:
            return True

    return Monitor()


def _check_grid_samples(trt: Any, network: Any, name: str) -> None:
    """Some parsers quietly read opset 20's "linear" as nearest."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.GRID_SAMPLE:
            layer.__class__ = trt.IGridSampleLayer
            if layer.interpolation_mode != trt.InterpolationMode.LINEAR:
                raise BuildError(f"{name!r}: {layer.name} was read as {layer.interpolation_mode}, not as linear.")


def _optimisation_profile(builder: Any, network: Any, profile: Profile, name: str) -> Any:
    made = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if tensor.name not in profile:
            raise BuildError(f"Input {tensor.name!r} of {name!r} is not in the profile of {', '.join(profile)}.")
        for wanted in profile[tensor.name]:
            if len(wanted) != len(shape) or any(
                fixed not in (-1, size) for fixed, size in zip(shape, wanted, strict=False)
            ):
                raise BuildError(
                    f"Input {tensor.name!r} of {name!r} is {shape}, -1 for what may change: the profile's "
                    f"{tuple(wanted)} is outside."
                )
        if -1 in shape:
            made.set_shape(tensor.name, *profile[tensor.name])
    return made


def _set_targets(trt: Any, config: Any, targets: Sequence[str]) -> None:
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            capability = getattr(trt.ComputeCapability, target.upper(), None)
            if capability is None:
                known = [n.lower() for n in trt.ComputeCapability.__members__ if n.startswith("SM")]
                raise BuildError(f"Unknown target {target!r}; there are {', '.join(known)}.")
            config.set_compute_capability(capability, index)


def _count(layers: Sequence[Any]) -> dict[tuple[str, str], int]:
    kinds = ((str(layer.type), str(layer.get_output_type(0))) for layer in layers)
    return dict(collections.Counter((kind.split(".")[-1], dtype.split(".")[-1]) for kind, dtype in kinds))


def _share(layers: Sequence[Any], dtype: str) -> float:
    """A quantised layer takes int8 from the dequantisation before it, whose own input says so."""
    made_by = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    computing = [layer for layer in layers if str(layer.type).split(".")[-1] in _COMPUTING]

    def has(layer: Any) -> bool:
        found = {str(layer.get_output_type(0)).split(".")[-1]}
        maker = made_by.get(layer.get_input(0).name)
        if maker is not None and "DEQUANTIZE" in str(maker.type):
            found.add("INT8")
        return dtype in found

    return sum(map(has, computing)) / max(1, len(computing))

"""Graphs of a bundle in ONNX Runtime, checked against the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnxruntime as ort

from ...bundle import Graph, TensorSpec
from ...errors import BackendError, BundleError

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(int8)": "int8"}


# Operators that ONNX Runtime itself puts on the CPU beside a GPU, where they compute shapes.
_OF_SHAPES = frozenset("Add Cast Concat Div Gather Mul Range Shape Size Slice Squeeze Sub Unsqueeze".split())  # noqa: SIM905


def open_session(
    graph: Graph, provider: str, threads: int, settings: Mapping[str, str] | None = None
) -> ort.InferenceSession:
    """A session of one graph, on this provider or not at all.

    Args:
        graph: from a bundle.
        provider: ONNX Runtime's name of it.
        settings: its options.
        threads: of the CPU provider.

    Raises:
        BackendError: the provider did not take the graph, or not all of it.
        BundleError: the graph is not what the manifest says.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A plan of memory for each shape that was seen would keep a block for each: a decoder sees hundreds.
    options.enable_mem_pattern = False
    # Threads that wait for a graph's next run by spinning would take the cores from the graph that runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    elsewhere_matters = provider != "CPUExecutionProvider"
    if elsewhere_matters:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        chosen = [(provider, dict(settings or {}))]
        # Its own fallback would print an error, and go on with another provider.
        session = ort.InferenceSession(graph.data, options, providers=chosen, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises a dozen types of its own, none of them public.
        raise BackendError(
            f"ONNX Runtime {ort.__version__} cannot load the graph {graph.name!r} ({error}).",
            "`python -m runtime doctor` says what is installed.",
        ) from error
    if provider not in session.get_providers():
        raise BackendError(
            f"ONNX Runtime fell back to {', '.join(session.get_providers())} where {provider} was asked for.",
            "`python -m runtime doctor` says what is missing; backend='cpu' always runs.",
        )
    if elsewhere_matters:
        check_placement(graph.name, session.get_provider_graph_assignment_info(), provider)
    for side, actual in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        found = tuple(TensorSpec(t.name, _DTYPES.get(t.type, t.type), tuple(t.shape)) for t in actual)
        if found != getattr(graph, side):
            raise BundleError(
                f"The graph {graph.name!r} has other {side} than the manifest says: {found}.",
                "Export the bundle again.",
            )
    return session


def check_placement(graph: str, assigned: Iterable[Any], provider: str) -> None:
    """Refuses a session that would carry data between two providers in the middle of a graph.

    Args:
        graph: its name.
        assigned: what `InferenceSession.get_provider_graph_assignment_info` says.
        provider: which should have everything but the arithmetic of shapes.

    Raises:
        BackendError: naming the nodes that another provider has.
    """
    nodes = [(part.ep_name, node) for part in assigned if part.ep_name != provider for node in part.get_nodes()]
    strays = [f"{node.name} ({node.op_type}) on {where}" for where, node in nodes if node.op_type not in _OF_SHAPES]
    if strays:
        more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
        raise BackendError(
            f"{provider} does not run all of the graph {graph!r}: {', '.join(strays[:3])}{more}.",
            "Use another precision, or backend='cpu'.",
        )

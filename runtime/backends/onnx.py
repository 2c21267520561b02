"""The `cpu` backend: ONNX Runtime for the networks, NumPy for reading the planes and for the inverse transform."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import Bundle, Graph, TensorSpec
from ..errors import BackendError, BundleError, ClosedError
from ..grid import Field
from ..planes import PlaneSampler
from ..timing import stage
from ..wavelet import idwt2d
from .base import Array

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(int8)": "int8"}


class OnnxBackend:
    """The bundle's graphs in ONNX Runtime's CPU provider.

    Args:
        bundle: verified bundle; precision: one of its variants.
        reason: why this backend was taken, for `runtime info`.
        threads: computing threads.

    Raises:
        BackendError: ONNX Runtime did not take the graphs.
        BundleError: a graph's inputs or outputs are not what the manifest says.
    """

    name = "cpu"

    def __init__(self, bundle: Bundle, precision: str, reason: str, threads: int) -> None:
        self.reason, self.threads = reason, threads
        self.workers: Executor | None = ThreadPoolExecutor(threads)
        self._detail_mean, self._detail_std = (a[..., None, None] for a in bundle.detail_statistics)
        # Each worker decodes its own points: one thread a session spares them waiting for one another.
        used = {"coarse": threads, "diffusion_step": threads, "decoder": 1}
        graphs = {name: bundle.graph(precision, name) for name in used}
        self._sessions = {name: open_session(graphs[name], "CPUExecutionProvider", n) for name, n in used.items()}

    def triplanes(self, images: Array, noise: Array, table: NDArray[np.float64]) -> Array:
        ll, standard = self.generate(images, noise, table)
        with stage("idwt"):
            details = standard * self._detail_std + self._detail_mean
            return idwt2d(ll, *np.split(details, 3, axis=2))

    def generate(self, images: Array, noise: Array, table: NDArray[np.float64]) -> tuple[Array, Array]:
        with stage("coarse"):
            ll, condition = self._run("coarse", image=images)
        state, denoised = noise[0], np.zeros_like(noise[0])
        for index, row in enumerate(table.astype(np.float32)):
            with stage("step"):
                fresh = noise[min(index + 1, len(noise) - 1)]
                state, denoised = self._run(
                    "diffusion_step", noisy=state, condition=condition, previous=denoised, noise=fresh, row=row
                )
            if not np.isfinite(state).all():
                raise BackendError(
                    f"Step {index + 1} of {len(table)} (timestep {row[0]:.0f}) gave NaN or infinity on {self.name}.",
                    "Use precision='float32'; if that is what ran, the weights are broken.",
                )
        return ll, state

    def field(self, triplane: Array) -> Field:
        sampler = PlaneSampler(triplane)

        def decode(points: Array) -> tuple[Array, Array]:
            rgb, density = self._run("decoder", features=sampler.at(points)[None])
            return rgb[0], density[0, :, 0]

        return decode

    def close(self) -> None:
        self._sessions.clear()
        if self.workers is not None:
            self.workers.shutdown()

    def _run(self, graph: str, **feeds: Array) -> list[Array]:
        session = self._sessions.get(graph)
        if session is None:
            raise ClosedError("The runtime of this scene is closed.", "Draw inside the runtime's lifetime.")
        try:
            return session.run(None, feeds)
        except Exception as error:
            raise BackendError(
                f"The graph {graph!r} failed on {self.name} ({error}).",
                "If memory ran out, use smaller batches, pictures or memory_limit.",
            ) from error


def open_session(
    graph: Graph, provider: str, threads: int, settings: Mapping[str, str] | None = None
) -> ort.InferenceSession:
    """A session of one graph, on this provider or not at all.

    Args:
        graph: from a bundle.
        provider: ONNX Runtime's name of it; settings: its options.
        threads: of the CPU provider.

    Raises:
        BackendError: the provider did not take the graph.
        BundleError: the graph is not what the manifest says.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(graph.data, options, providers=[(provider, dict(settings or {}))])
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
    for side, actual in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        found = tuple(TensorSpec(t.name, _DTYPES.get(t.type, t.type), tuple(t.shape)) for t in actual)
        if found != getattr(graph, side):
            raise BundleError(
                f"The graph {graph.name!r} has other {side} than the manifest says: {found}.",
                "Export the bundle again.",
            )
    return session

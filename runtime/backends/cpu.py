"""The backends `cpu` and `openvino`: networks in one or the other, NumPy for reading planes and joining bands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..array_types import Array
from ..bundle import Bundle, Graph
from ..diffusion.plan import SamplingPlan, run_sampler
from ..errors import BackendError, ClosedError
from ..profiling import stage
from ..rendering.field import Field, LatticeIndex
from ..rendering.parallel import DECODED_AT_ONCE
from ..rendering.triplane_sampler import PlaneSampler
from ..wavelet import idwt2d
from .base import Planes
from .onnxruntime.session import open_session

# Inputs by name to outputs in the graph's order.
Network = Callable[[Mapping[str, Array]], list[Array]]


class CpuBackend:
    """The bundle's graphs on a CPU: the networks where `open_network` puts them, the decoder in ONNX Runtime.

    Args:
        name: "cpu" or "openvino".
        bundle: verified bundle.
        precision: one of its variants.
        threads: computing threads.
        open_network: opens one graph of the bundle on a number of threads; what it returns is called from several.

    Raises:
        BackendError: a graph was not taken.
        BundleError: a graph's inputs or outputs are not what the manifest says.
    """

    # One image keeps all cores busy: several at once take no less time for each, only more memory.
    largest_group = 1

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        precision: str,
        threads: int,
        open_network: Callable[[Graph, int], Network],
    ) -> None:
        self.name, self.threads = name, threads
        self.workers: Executor | None = ThreadPoolExecutor(threads)
        self._detail_mean, self._detail_std = (a[..., None, None] for a in bundle.detail_statistics)
        graphs = {name: bundle.graph(precision, name) for name in ("coarse", "diffusion_step", "decoder")}
        self.networks = {n: open_network(graphs[n], threads) for n in ("coarse", "diffusion_step")}
        # Each worker decodes its own points: one thread a session spares them waiting for one another.
        self.networks["decoder"] = onnx_network(graphs["decoder"], 1)

    def triplanes(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> list[Planes]:
        made = []
        for image, seed in zip(images, seeds, strict=True):
            ll, standard = self.generate(image[None], plan, [seed])
            with stage("idwt"):
                details = standard * self._detail_std + self._detail_mean
                made.append(Planes(idwt2d(ll, *np.split(details, 3, axis=2))[0]))
        return made

    def generate(self, images: Array, plan: SamplingPlan, seeds: Sequence[int]) -> tuple[Array, Array]:
        with stage("coarse"):
            ll, condition = self._run("coarse", image=images)

        def step(noisy: Array, previous: Array, noise: Array, row: Array) -> tuple[Array, Array]:
            with stage("step"):
                feeds = {"noisy": noisy, "condition": condition, "previous": previous, "noise": noise, "row": row}
                state, denoised = self._run("diffusion_step", **feeds)
            if not np.isfinite(state).all():
                raise BackendError(
                    f"The sampling step at timestep {row[0]:.0f} gave NaN or infinity on {self.name}.",
                    "Use precision='float32'; if that is what ran, the weights are broken.",
                )
            return state, denoised

        return ll, run_sampler(plan.table.astype(np.float32), plan.noise(seeds), step)

    def field(self, triplane: Array, key: int | None = None) -> Field:
        return _PlaneField(PlaneSampler(triplane), self._decode, threading.Lock())

    def close(self) -> None:
        self.networks.clear()
        if self.workers is not None:
            self.workers.shutdown()

    def _decode(self, features: Array) -> tuple[Array, Array]:
        rgb, density = self._run("decoder", features=features[None])
        return rgb[0], density[0, :, 0]

    def _run(self, graph: str, **feeds: Array) -> list[Array]:
        network = self.networks.get(graph)
        if network is None:
            raise ClosedError("The runtime of this scene is closed.", "Draw inside the runtime's lifetime.")
        try:
            return network(feeds)
        except Exception as error:
            raise BackendError(
                f"The graph {graph!r} failed on {self.name} ({error}).",
                "If memory ran out, use smaller batches, pictures or memory_limit.",
            ) from error


@dataclass(frozen=True)
class _PlaneField:
    """A field that reads planes here and has what was read decoded.

    One thread reads while others decode: two that read would wait for the interpreter's lock at every operation.
    """

    sampler: PlaneSampler
    decode: Callable[[Array], tuple[Array, Array]]
    reading: threading.Lock

    def __call__(self, points: Array) -> tuple[Array, Array]:
        return self._decoded(len(points), lambda part: self.sampler.at(points[part]))

    def lattice(self, axis: Array) -> Callable[[LatticeIndex], tuple[Array, Array]]:
        features = self.sampler.lattice(axis)
        return lambda index: self._decoded(len(index[0]), lambda part: features([i[part] for i in index]))

    def _decoded(self, count: int, read: Callable[[slice], Array]) -> tuple[Array, Array]:
        rgb, density = np.empty((count, 3), np.float32), np.empty(count, np.float32)
        for start in range(0, count, DECODED_AT_ONCE):
            part = slice(start, start + DECODED_AT_ONCE)
            with self.reading:
                features = read(part)
            rgb[part], density[part] = self.decode(features)
        return rgb, density


def onnx_network(graph: Graph, threads: int) -> Network:
    """A graph in ONNX Runtime's CPU provider."""
    session = open_session(graph, "CPUExecutionProvider", threads)
    return lambda feeds: session.run(None, feeds)

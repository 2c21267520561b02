"""Choosing a backend: the named one or an error, and for "auto" the first that runs, with the reason in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ..bundle import ENGINE_GRAPHS, Bundle
from ..errors import AbsentError, BackendError, OptionError, install_hint
from .base import Backend
from .tensorrt.engine_file import build_hint, engine_folder, engine_path

_logger = logging.getLogger(__name__)

BACKENDS = ("auto", "tensorrt", "cuda", "openvino", "cpu")


def default_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_backend(name: str, bundle: Bundle, precision: str, threads: int | None) -> Backend:
    """Opens the backend `name` on a bundle.

    Args:
        name: one of `BACKENDS`.
        bundle, precision: what to run.
        threads: computing threads on a CPU; None for one per core that this process may use.

    Raises:
        BackendError: unknown, or it cannot run on this machine.
        OptionError: threads is no whole number of 1 or more.
    """
    if name not in BACKENDS:
        raise BackendError(f"Unknown backend {name!r}; there are {', '.join(BACKENDS)}.", "'auto' takes what runs.")
    if threads is None:
        threads = default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise OptionError(
            f"threads must be a whole number of 1 or more, not {threads!r}.", "Leave it out for all cores."
        )
    openers: dict[str, Callable[[str], Backend]] = {
        "tensorrt": lambda reason: _open_tensorrt(bundle, precision, reason),
        "cuda": lambda reason: _open_cuda(bundle, precision, reason),
        "openvino": lambda reason: _open_openvino(bundle, precision, reason, int(threads)),
        "cpu": lambda reason: _open_cpu(bundle, precision, reason, int(threads)),
    }
    if name != "auto":
        return openers[name]("asked for")
    refusals: list[str] = []
    for candidate in ("tensorrt", "cuda"):
        try:
            return openers[candidate]("; ".join([*refusals, "the first that runs"]))
        except BackendError as error:
            refusals.append(f"{candidate}: {error.cause.rstrip('.')}")
            if not isinstance(error, AbsentError):
                _logger.warning("Not taken: %s. %s", refusals[-1], error.remedy)
    return openers["cpu"]("; ".join(refusals))


# What is absent is found before what it would need is imported: most machines have no GPU, and wait for each start.
def _open_tensorrt(bundle: Bundle, precision: str, reason: str) -> Backend:
    folder = engine_folder(bundle)
    if not engine_path(folder, precision, ENGINE_GRAPHS[0]).exists():
        raise AbsentError(f"There are no engines of {precision} in {folder}.", build_hint(bundle, precision))
    from .tensorrt.launcher import open_tensorrt

    return open_tensorrt(bundle, precision, reason)


def _open_cuda(bundle: Bundle, precision: str, reason: str) -> Backend:
    with _onnxruntime():
        import onnxruntime
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise AbsentError(
            f"The installed ONNX Runtime {onnxruntime.__version__} has no CUDA provider.",
            f"Use backend='cpu', or run `pip uninstall -y onnxruntime` first. {install_hint('gpu')}",
        )
    from .onnxruntime.cuda import open_cuda

    return open_cuda(bundle, precision, reason)


def _open_cpu(bundle: Bundle, precision: str, reason: str, threads: int) -> Backend:
    with _onnxruntime():
        from .cpu import CpuBackend, onnx_network
    return CpuBackend("cpu", reason, bundle, precision, threads, onnx_network)


def _open_openvino(bundle: Bundle, precision: str, reason: str, threads: int) -> Backend:
    with _onnxruntime():
        from .openvino import open_openvino
    return open_openvino(bundle, precision, reason, threads)


@contextmanager
def _onnxruntime() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise BackendError(f"ONNX Runtime cannot be imported ({error}).", install_hint("cpu")) from error

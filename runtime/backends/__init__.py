"""Choosing a backend: the named one or an error, and for "auto" the first that runs, with the reason in words."""

from __future__ import annotations

import logging
import os

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, OptionError, install_hint
from .base import Backend

_logger = logging.getLogger(__name__)

BACKENDS = ("auto", "tensorrt", "cuda", "cpu")


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
    if name == "tensorrt":
        raise BackendError("The TensorRT backend is not part of this version.", "Use backend='cuda' or backend='cpu'.")
    try:
        import onnxruntime as ort

        from .onnx import OnnxBackend
    except ImportError as error:
        raise BackendError(
            f"ONNX Runtime cannot be imported ({error}).",
            install_hint("cpu"),
        ) from error
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if name == "cuda":
        if not has_cuda:
            raise BackendError(
                f"The installed ONNX Runtime {ort.__version__} has no CUDA provider.",
                f"Use backend='cpu', or run `pip uninstall -y onnxruntime` first. {install_hint('gpu')}",
            )
        return OnnxBackend(bundle, precision, "cuda", "asked for", int(threads))
    if name == "cpu":
        return OnnxBackend(bundle, precision, "cpu", "asked for", int(threads))
    refused = "this ONNX Runtime has no CUDA provider"
    if has_cuda:
        try:
            return OnnxBackend(bundle, precision, "cuda", "the first of cuda, cpu that runs", threads)
        except BackendError as error:
            refused = f"CUDA did not start: {error.cause}"
            _logger.warning("The CPU is used: %s", refused)
    return OnnxBackend(bundle, precision, "cpu", refused, threads)

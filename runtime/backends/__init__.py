"""Choosing a backend: the named one or an error, and for "auto" the first that runs and agrees with the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..arguments import whole_number
from ..bundle import ENGINE_GRAPHS, Bundle
from ..errors import AbsentError, BackendError, ThreadsWarning, UnprovenBackendWarning, install_hint, warn_caller
from ..machine import usable_cores
from .base import Backend
from .tensorrt.engine_file import build_hint, engine_folder, engine_path

_logger = logging.getLogger(__name__)

BACKENDS = ("auto", "tensorrt", "cuda", "openvino", "cpu")
# What `auto` tries before the CPU. Neither has run on hardware yet; take a name off when `pytest -m gpu` has passed.
_GPU = ("tensorrt", "cuda")
_UNPROVEN = frozenset({"tensorrt", "cuda"})
_warned: set[str] = set()


def open_backend(name: str, bundle: Bundle, precision: str, threads: int | None) -> tuple[Backend, str]:
    """Opens a backend on a bundle.

    Args:
        name: one of `BACKENDS`.
        bundle: verified.
        precision: one of its variants.
        threads: computing threads on a CPU; None for one per core that this process may use.

    Returns:
        The backend, and in words why it was taken.

    Raises:
        BackendError: unknown, or it cannot run on this machine.
        OptionError: threads is no whole number of 1 or more.
    """
    if name not in BACKENDS:
        raise BackendError(f"Unknown backend {name!r}; there are {', '.join(BACKENDS)}.", "'auto' takes what runs.")
    count = _threads(threads)
    openers: dict[str, Callable[[], Backend]] = {
        "tensorrt": lambda: _open_tensorrt(bundle, precision),
        "cuda": lambda: _open_cuda(bundle, precision),
        "openvino": lambda: _open_openvino(bundle, precision, count),
        "cpu": lambda: _open_cpu(bundle, precision, count),
    }
    if name != "auto":
        opened = openers[name]()
        if name in _UNPROVEN - _warned:
            _warned.add(name)
            warn_caller(
                f"The backend {name!r} has never run on hardware: it is tested on stand-ins alone. Compare what it "
                "gives with backend='cpu'.",
                UnprovenBackendWarning,
            )
        return opened, "asked for"
    refusals: list[str] = []
    for candidate in _GPU:
        try:
            return _checked(openers[candidate](), openers["cpu"], bundle, precision, refusals)
        except BackendError as error:
            refusals.append(f"{candidate}: {error.cause.rstrip('.')}")
            if not isinstance(error, AbsentError):
                _logger.warning("Not taken: %s. %s", refusals[-1], error.remedy)
    return openers["cpu"](), "; ".join(refusals)


def _threads(threads: int | None) -> int:
    """The computing threads to use, no more than there are cores: too many are up to ten times slower."""
    cores, limit = usable_cores()
    if threads is None:
        return cores
    asked = whole_number("threads", threads, 1, remedy="Leave it out for all cores.")
    if asked > cores:
        warn_caller(f"threads={asked} are more than {limit}, which leaves {cores}: {cores} are used.", ThreadsWarning)
    return min(asked, cores)


def _checked(
    opened: Backend, open_cpu: Callable[[], Backend], bundle: Bundle, precision: str, refusals: list[str]
) -> tuple[Backend, str]:
    """The opened backend and why it is taken, if it passes the self-check; else it is closed."""
    from .self_check import self_check

    try:
        said = self_check(opened, open_cpu, bundle, precision)
    except BaseException:
        opened.close()
        raise
    return opened, "; ".join([*refusals, f"the first that runs, {said}"])


# What is absent is found before what it would need is imported: most machines have no GPU, and wait for each start.
def _open_tensorrt(bundle: Bundle, precision: str) -> Backend:
    folder = engine_folder(bundle)
    if not engine_path(folder, precision, ENGINE_GRAPHS[0]).exists():
        raise AbsentError(f"There are no engines of {precision} in {folder}.", build_hint(bundle, precision))
    from .tensorrt.launcher import open_tensorrt

    return open_tensorrt(bundle, precision)


def _open_cuda(bundle: Bundle, precision: str) -> Backend:
    with _onnxruntime():
        import onnxruntime
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise AbsentError(
            f"The installed ONNX Runtime {onnxruntime.__version__} has no CUDA provider.",
            f"Use backend='cpu', or run `pip uninstall -y onnxruntime` first. {install_hint('gpu')}",
        )
    from .onnxruntime.cuda import open_cuda

    return open_cuda(bundle, precision)


def _open_cpu(bundle: Bundle, precision: str, threads: int) -> Backend:
    with _onnxruntime():
        from .cpu import CpuBackend, onnx_network
    return CpuBackend("cpu", bundle, precision, threads, onnx_network)


def _open_openvino(bundle: Bundle, precision: str, threads: int) -> Backend:
    with _onnxruntime():
        from .openvino import open_openvino
    return open_openvino(bundle, precision, threads)


@contextmanager
def _onnxruntime() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise BackendError(f"ONNX Runtime cannot be imported ({error}).", install_hint("cpu")) from error

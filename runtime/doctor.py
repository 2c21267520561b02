"""What this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from .backends.device.cuda import first_gpu, gpu_name
from .backends.tensorrt.installation import find_flavour
from .bundle import ENGINE_GRAPHS, default_bundle, load_bundle
from .errors import BackendError, BundleError, install_hint
from .machine import usable_cores


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        good: whether it is as it should be; None for what is optional and absent.
        detail: what was found, and the mending command where there is one.
    """

    subject: str
    good: bool | None
    detail: str


def examine() -> Iterator[Finding]:
    """Looks at Python, ONNX Runtime, CUDA, TensorRT and the default bundle."""
    cores, limit = usable_cores()
    yield Finding("python", True, f"{platform.python_version()} on {platform.platform()}")
    yield Finding("cores", True, f"{cores}, as many threads by default; the limit is {limit}")
    yield from _onnxruntime()
    openvino = _version("openvino")
    absent = f"absent, the CPU's int8 instructions go unused; {install_hint('openvino')}"
    yield Finding("openvino", True if openvino else None, f"{openvino}: backend='openvino'" if openvino else absent)
    yield from _gpu()
    for name in ("tensorrt", "rtx"):
        yield _tensorrt(name)
    try:
        bundle = load_bundle(default_bundle())
    except BundleError as error:
        yield Finding("default bundle", False, str(error))
    else:
        kind = "trained" if bundle.trained else "untrained: its pictures mean nothing"
        yield Finding("default bundle", True, f"{bundle.name}, {kind}, every file matches its sha256")


def _onnxruntime() -> Iterator[Finding]:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(installed) == 2:
        yield Finding(
            "onnxruntime",
            False,
            "onnxruntime and onnxruntime-gpu overwrite one another: run `pip uninstall -y onnxruntime onnxruntime-gpu` "
            "and install one of the extras: " + install_hint("cpu"),
        )
        return
    try:
        import onnxruntime as ort

        providers = ort.get_available_providers()
    except (ImportError, AttributeError) as error:
        yield Finding("onnxruntime", False, f"cannot be imported ({error}). {install_hint('cpu')}")
        return
    yield Finding("onnxruntime", True, f"{ort.__version__} with {', '.join(providers)}")
    if "CUDAExecutionProvider" in providers:
        yield _cuda_provider()
    else:
        swap = f"`pip uninstall -y onnxruntime` first. {install_hint('gpu')}"
        yield Finding("cuda provider", None, f"absent, the CPU is used; for an NVIDIA GPU run {swap}")


def _cuda_provider() -> Finding:
    """Being compiled in says little: whether its libraries load shows when it opens a graph."""
    from .backends.onnxruntime.session import open_session

    try:
        bundle = load_bundle(default_bundle())
        for name in ENGINE_GRAPHS:
            open_session(bundle.graph(bundle.precisions[0], name), "CUDAExecutionProvider", 1)
    except (BackendError, BundleError) as error:
        return Finding(
            "cuda provider",
            False,
            f"present, but does not open the graphs: {error.cause} The CPU is used. {install_hint('gpu')}",
        )
    return Finding("cuda provider", True, "opens every graph; tried after tensorrt")


def _gpu() -> Iterator[Finding]:
    try:
        cuda, name = first_gpu(), gpu_name()
    except BackendError as error:
        # A machine without a GPU is in order, one whose driver does not answer is not.
        driver = shutil.which("nvidia-smi")
        yield Finding("gpu", False if driver else None, f"{driver} is there, but: {error}" if driver else str(error))
        return
    _, driver_version = cuda.cudaDriverGetVersion()
    _, runtime_version = cuda.cudaRuntimeGetVersion()
    yield Finding("gpu", True, name)
    yield Finding(
        "nvidia driver",
        True,
        f"for CUDA up to {_dotted(driver_version)}; cuda-bindings is for {_dotted(runtime_version)}",
    )


def _tensorrt(name: str) -> Finding:
    try:
        flavour = find_flavour(name)
    except BackendError as error:
        return Finding(name, None, str(error))
    trt = flavour.module
    # Its libraries are loaded here: a module that imports may still lack them.
    try:
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    except Exception as error:  # Each release raises kinds of its own.
        return Finding(name, False, f"{flavour.version} is installed, but makes no builder ({error}).")
    if not builder:
        return Finding(name, False, f"{flavour.version} is installed, but makes no builder.")
    return Finding(
        name, True, f"{flavour.version}: builds engines; the tensorrt backend runs them where there is a GPU"
    )


def _dotted(version: int) -> str:
    """CUDA's 13020 as 13.2."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

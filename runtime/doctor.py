"""What this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from .backends import default_threads
from .bundle import default_bundle, load_bundle
from .errors import BackendError, BundleError, install_hint
from .flavours import find_flavour


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
    yield Finding("python", True, f"{platform.python_version()} on {platform.platform()}, {default_threads()} cores")
    yield from _onnxruntime()
    openvino = _version("openvino")
    absent = f"absent, the CPU's int8 instructions go unused; {install_hint('openvino')}"
    yield Finding("openvino", True if openvino else None, f"{openvino}: backend='openvino'" if openvino else absent)
    driver = shutil.which("nvidia-smi")
    yield Finding("nvidia driver", True if driver else None, driver or "no nvidia-smi on the path: no GPU will be used")
    for name in ("tensorrt", "rtx"):
        try:
            flavour = find_flavour(name)
        except BackendError as error:
            yield Finding(name, None, str(error))
        else:
            yield Finding(
                name, True, f"{flavour.version}: builds engines; the tensorrt backend runs them where there is a GPU"
            )
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
        yield Finding("cuda provider", True, "present; tried after tensorrt")
    else:
        swap = f"`pip uninstall -y onnxruntime` first. {install_hint('gpu')}"
        yield Finding("cuda provider", None, f"absent, the CPU is used; for an NVIDIA GPU run {swap}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

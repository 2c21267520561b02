"""TensorRT 10 and 11 and TensorRT-RTX behind one name: which is installed, and what differs between them."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .errors import AbsentError, BackendError, OptionError, install_hint

FLAVOURS = ("auto", "tensorrt", "rtx")
_MODULES = {"tensorrt": ("tensorrt",), "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}


@dataclass(frozen=True)
class Flavour:
    """An installed TensorRT.

    Attributes:
        name: "tensorrt" or "rtx".
        module: its Python module; what this project calls is the same in both.
    """

    name: str
    module: ModuleType

    @property
    def version(self) -> str:
        """Its full version."""
        version: str = self.module.__version__
        return version

    @property
    def network_flags(self) -> int:
        """Precision lives in the graph: TensorRT 10 has to be told so, later ones and RTX know nothing else."""
        if self.name == "tensorrt" and int(self.version.split(".")[0]) < 11:
            return 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return 0


def first_gpu() -> Any:
    """cuda-bindings' runtime module, with the first GPU as the calling thread's own.

    Raises:
        AbsentError: there is no GPU, or `cuda-bindings` is not installed.
    """
    try:
        from cuda.bindings import runtime as cuda
    except ImportError as error:
        hint = f"{install_hint('gpu')} Or, with TensorRT-RTX: {install_hint('tensorrt-rtx')}"
        raise AbsentError(f"cuda-bindings cannot be imported ({error}).", hint) from None
    status, count = cuda.cudaGetDeviceCount()
    if int(status) == 0 and count:
        (status,) = cuda.cudaSetDevice(0)
    if status.name == "cudaErrorInsufficientDriver" and shutil.which("nvidia-smi"):
        raise BackendError("The NVIDIA driver is older than cuda-bindings.", "Install a newer driver.")
    if int(status) != 0 or not count:
        raise AbsentError(
            f"There is no CUDA GPU here ({status.name}).",
            "Use backend='cpu'; engines for another machine's GPU are built with --flavour rtx --targets sm86,sm89.",
        )
    return cuda


def gpu_name() -> str:
    """Name and compute capability of the first GPU, as engines are tied to it: "NVIDIA L4, sm89".

    Raises:
        AbsentError: as in `first_gpu`.
        BackendError: the driver does not say.
    """
    status, properties = first_gpu().cudaGetDeviceProperties(0)
    if int(status) != 0:
        raise BackendError(f"The driver does not name its GPU ({status.name}).", "Does `nvidia-smi` run?")
    name = properties.name.decode().rstrip("\0") if isinstance(properties.name, bytes) else str(properties.name)
    return f"{name}, sm{properties.major}{properties.minor}"


def find_flavour(name: str) -> Flavour:
    """Imports a flavour; "auto" takes TensorRT where it is installed, then RTX.

    Raises:
        OptionError: no such flavour.
        BackendError: it is not installed, or does not import.
    """
    if name not in FLAVOURS:
        raise OptionError(f"Unknown flavour {name!r}; there are {', '.join(FLAVOURS)}.", "'auto' takes what is there.")
    tried = []
    for flavour in _MODULES if name == "auto" else (name,):
        for module in _MODULES[flavour]:
            try:
                found = importlib.import_module(module)
            except Exception as error:  # A source stub on PyPI, a missing library: each fails in its own way.
                tried.append(f"{module}: {type(error).__name__}")
                continue
            if hasattr(found, "Builder"):
                return Flavour(flavour, found)
            tried.append(f"{module}: a stub without libraries")
    own = "TensorRT itself comes from NVIDIA: `pip install tensorrt`, or its installer."
    remedy = own if name == "tensorrt" else install_hint("tensorrt-rtx")
    raise BackendError(f"No TensorRT is installed ({'; '.join(tried)}).", remedy)

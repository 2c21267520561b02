"""TensorRT 10 and 11 and TensorRT-RTX behind one name: which is installed, and what differs between them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from ...errors import BackendError, OptionError, install_hint

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

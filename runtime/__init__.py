"""Image to 3-D without PyTorch: loads a bundle of ONNX graphs, reconstructs an object from an image and draws it.

Examples:
    >>> image = runtime.render("chair.png")  # (128, 128, 3) uint8, the default bundle
    >>> with runtime.load() as rt:
    ...     scene = rt.reconstruct("chair.png", seed=3)
    ...     frame = scene.render(runtime.Camera.orbit(azimuth=60), image_size=256)
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wavelet
from .bundle import default_bundle
from .errors import (
    BackendError,
    BackgroundWarning,
    BundleError,
    CameraError,
    ClosedError,
    FramingWarning,
    ImageError,
    OptionError,
    ThreadsWarning,
    UnprovenBackendWarning,
    UntrainedWarning,
    WaveletTriplaneError,
)
from .geometry.cameras import Camera
from .meshing.mesh import Mesh
from .pipeline import Runtime
from .preprocessing import ImageBatch, ImageInput
from .profiling import record_times
from .scene import Frame, Scene

__all__ = [
    "BackendError",
    "BackgroundWarning",
    "BundleError",
    "Camera",
    "CameraError",
    "ClosedError",
    "Frame",
    "FramingWarning",
    "ImageError",
    "Mesh",
    "OptionError",
    "Runtime",
    "Scene",
    "ThreadsWarning",
    "UnprovenBackendWarning",
    "UntrainedWarning",
    "WaveletTriplaneError",
    "default_bundle",
    "load",
    "record_times",
    "render",
    "wavelet",
]

# ONNX Runtime 1.32 keeps a device id and a database of events in the user's home and means to send them. It reads this
# at its first import, which is below this package; who wants its telemetry sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_default: Runtime | None = None
_default_lock = threading.Lock()


def _forget_default() -> None:
    """A forked child loads a runtime of its own."""
    global _default, _default_lock
    _default, _default_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_default)


def load(
    bundle: str | Path | None = None,
    backend: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    memory_limit: int | None = None,
    background_model: str | Path | None = None,
) -> Runtime:
    """Loads a bundle; the arguments are those of `Runtime`."""
    return Runtime(bundle, backend, precision, threads, memory_limit, background_model)


def render(image: ImageInput | ImageBatch, **options: Any) -> NDArray[np.uint8]:
    """Draws the object in an image with the default bundle, which is loaded once; options as in `Runtime.render`."""
    global _default
    with _default_lock:
        if _default is None:
            _default = load()
    return _default.render(image, **options)

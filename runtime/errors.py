"""The runtime's exception tree.

Every error that a caller can cause is a `WaveletTriplaneError`. Its message has two halves: the cause (with the
values that would be allowed) and the remedy, also available apart as `error.cause` and `error.remedy`.
"""

from __future__ import annotations

import sys
import warnings


class ProjectError(Exception):
    """Base class of everything that this project raises on purpose, in the runtime and in its tools."""


class WaveletTriplaneError(ProjectError):
    """Base class of everything that the runtime raises on purpose; can be pickled.

    Args:
        cause: one sentence, what is wrong, with the offending value and the allowed ones.
        remedy: one sentence, what to do about it.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} {remedy}")
        self.cause = cause
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[WaveletTriplaneError], tuple[str, str]]:
        # Exception's own way would call the class with the joined message alone.
        return type(self), (self.cause, self.remedy)


class ImageError(WaveletTriplaneError, ValueError):
    """The input image cannot be read, or holds nothing that could be reconstructed."""


class CameraError(WaveletTriplaneError, ValueError):
    """A pose or a field of view that describes no camera."""


class OptionError(WaveletTriplaneError, ValueError):
    """An argument outside its allowed values: steps, sampler, sizes, seeds, threads, memory."""


class BundleError(WaveletTriplaneError):
    """The bundle is missing, incomplete, altered, or of another format version."""


class BackendError(WaveletTriplaneError):
    """The backend is unknown, or cannot run on this machine."""


class AbsentError(BackendError):
    """What the backend needs is not installed or not there: the rule on most machines, and no reason for alarm."""


class ClosedError(WaveletTriplaneError):
    """The runtime was used after `close()`."""


class BackgroundWarning(UserWarning):
    """An opaque image: its background was not removed, and becomes part of the object."""


class FramingWarning(UserWarning):
    """Parts of the image were left out of the frame, which would have been larger with them."""


class UntrainedWarning(UserWarning):
    """The bundle's weights come from a random seed: what it reconstructs means nothing."""


class ThreadsWarning(UserWarning):
    """More threads were asked for than this process may use."""


class UnprovenBackendWarning(UserWarning):
    """A named backend that has been tested on stand-ins alone, never on hardware."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warns at the line outside this package that led here."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def install_hint(extra: str) -> str:
    """How to add one of the package's extras: cpu, gpu, openvino, mesh or tensorrt-rtx."""
    return f"Run `pip install '.[{extra}]'` in the checkout, or name the wheel: `pip install 'WHEEL[{extra}]'`."

"""Backgrounds removed by a network: the library rembg, with its models or one of the user's own."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..array_types import Array
from ..errors import BackendError, OptionError, install_hint

DEFAULT_MODEL = "u2net"


class Matting:
    """One rembg session, opened when it is first needed. Safe to be called from several threads, one after another.

    Args:
        model: a name that rembg knows, or the path of an ONNX file with U2-Net's inputs and outputs; None for u2net.
        providers: of ONNX Runtime, in order.
    """

    def __init__(self, model: str | Path | None = None, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> None:
        self._model, self._providers = str(DEFAULT_MODEL if model is None else model), list(providers)
        self._file = Path(self._model) if self._model.endswith(".onnx") else None
        self._lock, self._session = threading.Lock(), None

    def is_present(self) -> bool:
        """Whether rembg is installed and the model on this machine: nothing would be downloaded."""
        if importlib.util.find_spec("rembg") is None:
            return False
        return self._file is not None or any(
            folder.is_dir() and next(folder.rglob(f"{self._model}.onnx"), None) for folder in _model_folders()
        )

    def __call__(self, rgb: Array) -> Array:
        """Returns alpha (H, W) in [0, 1] of an image (3, H, W) in [0, 1].

        Raises:
            OptionError: rembg is not installed, knows no such model, or the file does not exist.
            BackendError: the model cannot be had, or does not run.
        """
        picture = Image.fromarray(np.round(rgb.transpose(1, 2, 0) * 255).astype(np.uint8))
        with self._lock:
            if self._session is None:
                self._session = self._opened()
            import rembg

            try:
                mask = rembg.remove(picture, session=self._session, only_mask=True)
            except Exception as error:  # Of another signature than the session expects, above all.
                raise BackendError(
                    f"The background model {self._model!r} does not run ({error}).", "Use a model of rembg's."
                ) from error
        return np.asarray(mask.convert("L"), np.float32) / np.float32(255)

    def _opened(self) -> Any:
        try:
            import rembg
        except ImportError:
            raise OptionError(
                "Removing a background by a network needs rembg, which is not installed.", install_hint("background")
            ) from None
        if self._file is not None and not self._file.is_file():
            raise OptionError(f"There is no background model at {self._file}.", "Give the path of an ONNX file.")
        try:
            if self._file is not None:
                session = _of_file(self._file, self._providers)
            else:
                session = rembg.new_session(self._model, providers=self._providers)
        except ValueError as error:
            raise OptionError(f"rembg has no model {self._model!r} ({error}).", "Its README lists them.") from None
        except Exception as error:  # Downloading fails in many ways.
            raise BackendError(
                f"The background model {self._model!r} cannot be had ({type(error).__name__}).",
                f"Put {self._model}.onnx into ~/.u2net (or the folder that U2NET_HOME names), or give a file's path.",
            ) from error
        if not getattr(session, "is_local", lambda: True)():
            raise OptionError(f"The background model {self._model!r} sends images elsewhere.", "Use a local one.")
        return session


def _model_folders() -> list[Path]:
    """Where rembg of any version keeps its models."""
    named = [os.environ[name] for name in ("U2NET_HOME", "REMBG_HOME") if os.environ.get(name)]
    homes = [os.environ.get("XDG_DATA_HOME"), os.path.expanduser("~")]
    return [Path(name) for name in named] + [Path(home) / f for home in homes if home for f in (".u2net", ".rembg")]


def _of_file(path: Path, providers: list[str]) -> Any:
    """A rembg session of a file anywhere: its own wants the file in a folder of models."""
    import onnxruntime
    from rembg.sessions.u2net_custom import U2netCustomSession

    class FileSession(U2netCustomSession):  # type: ignore[misc]
        @classmethod
        def download_models(cls, *args: Any, **kwargs: Any) -> str:
            return str(path)

    return FileSession("u2net_custom", onnxruntime.SessionOptions(), providers=providers, model_path=str(path))

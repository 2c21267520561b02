"""Checkpoint to bundle, bundle to engines."""

from pathlib import Path

import model
import runtime  # switches ONNX Runtime's telemetry off, before anything here imports that

_beside = Path(__file__).resolve().parent.parent
for _package in (model, runtime):
    _found = Path(getattr(_package, "__file__", None) or "?").resolve()
    if _found.parent.parent != _beside:
        raise ImportError(
            f"`import {_package.__name__}` finds {_found}, not the package in {_beside}: another module of that name "
            "comes first. Rename it, or run from another folder."
        )

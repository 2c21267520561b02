"""Checkpoint to bundle, bundle to engines."""

import runtime  # noqa: F401 (switches ONNX Runtime's telemetry off, before anything here imports that)

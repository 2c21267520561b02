"""Quality and speed beside what a user would pick instead."""

import runtime  # noqa: F401 (switches ONNX Runtime's telemetry off, before anything here imports that)

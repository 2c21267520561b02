"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

REQUESTS = Counter("wavelet_triplane_requests", "Answered requests.", ("path", "status"))
STAGES = Histogram(
    "wavelet_triplane_stage_seconds", "Of a reconstruction, by stage.", ("stage",),
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)  # fmt: skip
GROUPS = Histogram(
    "wavelet_triplane_group_size", "Images that were reconstructed at once.", buckets=(1, 2, 4, 8, 16, 32)
)
PENDING = Gauge("wavelet_triplane_pending", "Requests that wait or are worked on.")


def exposed(pending: int) -> tuple[bytes, int, dict[str, str]]:
    """Returns body, status and headers of an answer to Prometheus, with the process's own memory and time."""
    PENDING.set(pending)
    return generate_latest(REGISTRY), 200, {"Content-Type": CONTENT_TYPE_LATEST}

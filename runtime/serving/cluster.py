"""The application on several machines, as a Ray Serve deployment.

    WAVELET_TRIPLANE_TOKEN=... serve run runtime.serving.cluster:build replicas=2 threads=1
    serve deploy deploy/cluster.yaml

Each replica is one process with a runtime, a queue and limits of its own, as `wavelet-triplane serve` has them. Ray's
proxies share the requests out, hold back what no replica takes, and turn away (503) what they cannot hold.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from ..errors import OptionError
from ..pipeline import Runtime
from .app import Service, create_app
from .options import Limits

# Beside the one that is worked on: enough that a replica never waits for the proxy.
_BESIDE = 1


class ClusterOptions(BaseModel):
    """Arguments of the application, as `serve run` and a configuration file give them."""

    model_config = ConfigDict(extra="forbid")

    bundle: str | None = Field(None, description="Folder of a bundle on every machine; the shipped one by default.")
    backend: str = "auto"
    precision: str | None = None
    threads: int | None = Field(None, ge=1, description="Computing threads of a replica; its cores by default.")
    replicas: int = Field(1, ge=1, description="At the least.")
    most_replicas: int | None = Field(None, ge=1, description="Under load; as many as at the least if left out.")
    cores: float = Field(1.0, gt=0, description="That Ray sets aside for a replica.")
    gpus: float = Field(0.0, ge=0, description="That Ray sets aside for a replica; a fraction lets several share one.")
    queued: int = Field(64, ge=-1, description="Requests that may wait at a proxy; -1 for any number.")
    seconds: float = Field(60.0, gt=0, description="From a request's arrival at a replica to its answer, at the most.")
    open_to_all: bool = Field(False, description="Takes requests without a token, where others guard the network.")


def build(options: ClusterOptions) -> serve.Application:
    """Makes the application; `serve run` and `serve deploy` call it.

    The token of requests is that of the variable WAVELET_TRIPLANE_TOKEN where this is called.

    Args:
        options: of the deployment.

    Raises:
        OptionError: there is no token, and the options do not say that none is wanted.
    """
    token = os.environ.get("WAVELET_TRIPLANE_TOKEN") or None
    if token is None and not options.open_to_all:
        raise OptionError(
            "Ray's proxies may listen on every address, and would let anybody in.",
            "Set WAVELET_TRIPLANE_TOKEN, or open_to_all=true where the network is guarded.",
        )
    limits = Limits(waiting=_BESIDE, seconds=options.seconds)

    def make() -> FastAPI:
        threads = options.threads or max(1, int(options.cores))
        rt = Runtime(options.bundle, options.backend, options.precision, threads)
        # A replica that replaces another takes its requests only when it is warm.
        return create_app(rt, limits, token, warm_first=True, any_host=options.open_to_all)

    @serve.ingress(make)
    class Reconstructions:
        """One replica."""

        async def check_health(self) -> None:
            """Raises where no request should be sent here any more; Ray then starts another replica."""
            service: Service = self._asgi_app.state.service  # type: ignore[attr-defined]
            fault = await asyncio.to_thread(service.fault)
            if fault is not None:
                raise RuntimeError(fault)

    scaling: dict[str, Any] = {"num_replicas": options.replicas}
    if options.most_replicas is not None and options.most_replicas > options.replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": options.replicas, "max_replicas": options.most_replicas, "target_ongoing_requests": 1,
            }
        }  # fmt: skip
    deployment = serve.deployment(
        Reconstructions,
        name="reconstructions",
        max_ongoing_requests=1 + _BESIDE,
        max_queued_requests=options.queued,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=options.seconds,
        ray_actor_options={"num_cpus": options.cores, "num_gpus": options.gpus},
        **scaling,
    )
    return deployment.bind()

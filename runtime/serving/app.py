"""The application: `create_app()` for any ASGI server; `wavelet-triplane serve` runs it under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import logging
import math
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from PIL import Image

from ..backends.self_check import example_images
from ..bundle import ENGINES
from ..errors import OptionError, WaveletTriplaneError
from ..pipeline import Runtime
from ..profiling import record_times
from . import metrics, problems
from .body import Upload, read_upload
from .gate import Gate
from .groups import Groups, Member
from .options import Limits, Options
from .problems import Problem
from .results import MEDIA_TYPES, Results
from .scheduler import Scheduler, Stopped

log = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"
# Of the disk that temporary files go to.
_FREE_BYTES = 64 << 20
_BODY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {name: {"type": "string", "format": "binary"} for name in ("image", "mask")},
    }
}
_PROBLEM: dict[str, Any] = {"content": {problems.MEDIA_TYPE: {}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The image cannot be read, or holds nothing to reconstruct.", **_PROBLEM},
    401: {"description": "The token is missing or wrong.", **_PROBLEM},
    408: {"description": "The body took too long to arrive.", **_PROBLEM},
    413: {"description": "Too many bytes or pixels.", **_PROBLEM},
    415: {"description": "A content type that is no image.", **_PROBLEM},
    422: {"description": "An option out of range.", **_PROBLEM},
    503: {"description": "The queue is full, or the server is not ready; Retry-After says when.", **_PROBLEM},
    504: {"description": "It was not done in time.", **_PROBLEM},
}


class Service:
    """A runtime, its queue, and whether they may be used."""

    def __init__(self, rt: Runtime, limits: Limits) -> None:
        self.rt, self.limits, self.scheduler = rt, limits, Scheduler(limits.waiting)
        self.groups = Groups(rt, rt.backend.largest_group)
        self.warm, self._files = False, _state_of(rt.bundle.path)
        self._failure: str | None = None

    async def warm_up(self) -> None:
        """Draws an example, which loads and compiles what the first request would wait for."""
        try:
            # However long: engines may have to be built.
            await self.scheduler.run(self._draw_example, math.inf)
            self.warm = True
        except (Problem, WaveletTriplaneError) as error:
            self._failure = error.cause
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
        if self._failure is not None:
            log.error("the warm-up failed: %s", self._failure)

    def _draw_example(self, _: Stopped) -> None:
        example, size = example_images(1, self.rt.bundle.image_size)[0], self.rt.backend.largest_group
        scene = self.rt.reconstruct(example, background="keep")
        scene.render()
        if size > 1:
            self.rt.reconstruct([example] * size, background="keep")
        # What meshes are made by takes seconds to import; untrained weights may show no surface.
        with contextlib.suppress(OptionError):
            small = {"format": ["glb"], "resolution": 32, "faces": 500, "texture": 64}
            Results(scene, Options.model_validate(small)).file()

    def fault(self) -> str | None:
        """Says what only a restart mends, or None."""
        if self._failure is not None:
            return f"The warm-up failed: {self._failure}"
        if _state_of(self.rt.bundle.path) != self._files:
            return f"The bundle at {self.rt.bundle.path} was altered since it was loaded: restart the server."
        return None

    def trouble(self) -> str | None:
        """Says why no request should be sent here, or None."""
        fault = self.fault()
        if fault is not None:
            return fault
        if not self.warm:
            return "It is warming up."
        if shutil.disk_usage(tempfile.gettempdir()).free < _FREE_BYTES:
            return f"The disk of {tempfile.gettempdir()} is full."
        return None

    def check(self, upload: Upload, options: Options) -> None:
        """Raises a `Problem` where a request asks for what this server does not give."""
        for image in filter(None, (upload.image, upload.mask)):
            _check_pixels(image, self.limits.pixels)
        if options.background == "rembg" and not self.rt.has_background_model:
            raise Problem(
                422, "The server has no model for background=rembg.", "Use background=auto, or send a mask or alpha."
            )

    def reconstruct(self, member: Member, options: Options, stopped: Stopped) -> tuple[str, bytes, dict[str, str]]:
        """Name, content and headers of an answer; `stopped` tells whether it is wanted no more."""
        started = time.perf_counter()
        with record_times() as times, warnings.catch_warnings():
            # What a user should know goes into a header: a warning of the process would reach nobody.
            warnings.simplefilter("ignore")
            scene = self.groups.scene(member)
            name, content = Results(scene, options, stopped).file()
        notes = " ".join(text for text, _ in scene.source.notes) if scene.source is not None else ""
        for stage, seconds in times.items():
            metrics.STAGES.labels(stage).observe(sum(seconds))
        times["total"] = [time.perf_counter() - started]
        timing = ", ".join(f"{stage};dur={1e3 * sum(seconds):.1f}" for stage, seconds in times.items())
        return name, content, {"Server-Timing": timing, "X-Seed": str(member.seed), "X-Notes": notes}


def create_app(
    rt: Runtime | None = None,
    limits: Limits | None = None,
    token: str | None = None,
    warm_first: bool = False,
    page: Path = PAGE,
    any_host: bool = False,
) -> FastAPI:
    """Makes the application.

    Args:
        rt: runtime that it uses and closes; None loads the default bundle.
        limits: of requests; None for the defaults.
        token: that requests under /v1 have to bear; None for none.
        warm_first: finishes the warm-up before the first connection, instead of answering /readyz with 503 until then.
        page: folder of the page; one that `export/to_web.py` made can run the model in the browser, too.
        any_host: takes requests for any name without a token, where others guard the network.
    """
    service = Service(Runtime() if rt is None else rt, limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(service.warm_up())
        if warm_first:
            await warming
        yield
        await warming
        await service.scheduler.close()
        service.rt.close()

    app = FastAPIOffline(
        title="Wavelet Triplane Diffusion", description="One image in, a 3-D object out.", lifespan=lifespan,
        version=str(service.rt.bundle.manifest["format_version"]),
    )  # fmt: skip
    app.state.service = service
    problems.install(app)

    app.add_middleware(Gate, any_host=any_host or token is not None)

    def check_token(request: Request) -> None:
        if token is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Problem(401, "The token is missing or wrong.", "Send `Authorization: Bearer TOKEN`.")

    allowed = [Depends(check_token)]

    @app.post(
        "/v1/reconstructions",
        dependencies=allowed,
        response_class=Response,
        responses={200: {"content": dict.fromkeys(sorted(set(MEDIA_TYPES.values())), _BODY)}, **_ERRORS},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"image/*": _BODY, "application/octet-stream": _BODY, "multipart/form-data": _FORM},
            }
        },
    )
    async def reconstruct(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Reconstructs the object in an image: the image as the body, or `image` and perhaps `mask` in a form."""
        started = asyncio.get_running_loop().time()
        # Before the body is read: an upload that will be refused is not worth its memory.
        service.scheduler.check_room()
        upload = await read_upload(request, service.limits)
        await asyncio.to_thread(service.check, upload, options)
        seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
        left = service.limits.seconds - (asyncio.get_running_loop().time() - started)
        member = service.groups.join(upload, options, seed)
        try:
            name, content, headers = await service.scheduler.run(
                lambda stopped: service.reconstruct(member, options, stopped), left, request.is_disconnected
            )
        finally:
            service.groups.leave(member)
        headers |= {"Content-Disposition": f'inline; filename="{name}"'}
        return Response(content, headers=headers, media_type=MEDIA_TYPES[Path(name).suffix])

    @app.get("/v1/bundle", dependencies=allowed, responses={401: _ERRORS[401]})
    async def bundle() -> dict[str, Any]:
        """Says what is served."""
        used = service.rt.bundle
        return {
            "name": used.name, "trained": used.trained, "precision": service.rt.precision,
            "backend": service.rt.backend.name, "steps": used.default_steps, "sampler": used.default_sampler,
            "image_size": used.image_size, "parameters": used.manifest["parameters"],
            "limits": vars(service.limits),
        }  # fmt: skip

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """Answers as long as the process does."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: _ERRORS[503]})
    async def ready(request: Request) -> JSONResponse:
        """Says whether requests should be sent here."""
        trouble = await asyncio.to_thread(service.trouble)
        if trouble is not None:
            return problems.answer(request, Problem(503, trouble, "", {"Retry-After": "5"}))
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", response_class=Response)
    async def measure() -> Response:
        """Figures for Prometheus."""
        return Response(*metrics.exposed(service.scheduler.pending))

    app.mount("/", _Page(directory=page, html=True), name="page")
    return app


class _Page(StaticFiles):
    """Files with the headers that threads in a browser want."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        answer = super().file_response(*arguments, **options)
        answer.headers.update(
            {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
        )
        return answer


def _state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of a bundle but its engines, which a backend reads once."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and ENGINES not in p.relative_to(folder).parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def _check_pixels(image: bytes, most: int) -> None:
    """Refuses an image by its header, before it takes memory; what cannot be read is the runtime's to say."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except Image.DecompressionBombError:
        raise Problem(413, "The image has too many pixels.", f"At most {most:,} are taken.") from None
    except Exception:
        return
    if width * height > most:
        raise Problem(413, f"The image has {width}x{height} pixels.", f"At most {most:,} are taken.")

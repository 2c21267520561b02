"""Errors as problem documents (RFC 9457), with the runtime's cause and remedy."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import CameraError, ImageError, OptionError, WaveletTriplaneError

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
# What nginx calls a client that went away; there is no one to read it.
_NAMES = {499: "Client Closed Request"}


class Problem(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        cause: what is wrong.
        remedy: what to do about it.
        headers: of the answer.
    """

    def __init__(self, status: int, cause: str, remedy: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(cause)
        self.status, self.cause, self.remedy, self.headers = status, cause, remedy, headers or {}


def answer(request: Request, problem: Problem, **more: Any) -> JSONResponse:
    """Returns a problem document."""
    status = problem.status
    content = {
        "type": "about:blank",
        "title": _NAMES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": problem.cause,
        "remedy": problem.remedy,
        "request_id": getattr(request.state, "request_id", ""),
        **more,
    }
    return JSONResponse(content, status, problem.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of an application a problem document."""

    @app.exception_handler(Problem)
    async def ours(request: Request, error: Problem) -> JSONResponse:
        return answer(request, error)

    @app.exception_handler(WaveletTriplaneError)
    async def of_the_runtime(request: Request, error: WaveletTriplaneError) -> JSONResponse:
        status = 400 if isinstance(error, ImageError) else 422 if isinstance(error, OptionError | CameraError) else 503
        return answer(request, Problem(status, error.cause, error.remedy))

    @app.exception_handler(RequestValidationError)
    async def of_the_options(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [{"option": str(e["loc"][min(1, len(e["loc"]) - 1)]), "message": e["msg"]} for e in error.errors()]
        causes = "; ".join(f"{item['option']}: {item['message']}" for item in wrong)
        return answer(request, Problem(422, causes, "See /docs for the options."), options=wrong)

    @app.exception_handler(HTTPException)
    async def of_the_router(request: Request, error: HTTPException) -> JSONResponse:
        return answer(request, Problem(error.status_code, str(error.detail), "", dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def of_the_program(request: Request, error: Exception) -> JSONResponse:
        log.error("a mistake of the program", exc_info=error)
        return answer(request, Problem(500, "This is a mistake of the program.", "Report it, with the request's id."))

    @app.exception_handler(MemoryError)
    @app.exception_handler(OSError)
    async def of_the_machine(request: Request, error: Exception) -> JSONResponse:
        log.exception("the machine ran out of something")
        return answer(request, Problem(503, f"The server ran out of something: {error}.", "Try again later."))

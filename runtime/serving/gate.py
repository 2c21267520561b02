"""What every request passes: an id, a count of its answer, and a look at which host it was meant for."""

from __future__ import annotations

import re
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..machine import LOOPBACK
from . import metrics, problems
from .problems import Problem


class Gate:
    """Middleware, of plain ASGI: behind Starlette's own a request never learns that its client went away.

    Args:
        app: what comes behind.
        any_host: takes requests for any name. Without a token none but this machine's names are taken, and no page of
            another site may send any: else whatever a browser shows could use the server.
    """

    def __init__(self, app: ASGIApp, any_host: bool) -> None:
        self.app, self.any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        known = re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) is not None
        request_id = scope.setdefault("state", {})["request_id"] = given if known else uuid.uuid4().hex

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                path = getattr(scope.get("route"), "path", "other")
                metrics.REQUESTS.labels(path, str(message["status"])).inc()
            await send(message)

        host, origin = urlsplit(f"//{headers.get('host', '')}"), headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != host.netloc
        if not self.any_host and (host.hostname not in LOOPBACK or foreign):
            refused = Problem(403, "The request comes from another site, or is meant for another host.", "Set a token.")
            await problems.answer(Request(scope), refused)(scope, receive, answer)
            return
        await self.app(scope, receive, answer)

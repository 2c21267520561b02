"""Reading a request's body: within limits of bytes and time, raw or as a form."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from .options import Limits
from .problems import Problem

_KINDS = "Send image/*, application/octet-stream, or multipart/form-data with `image` and perhaps `mask`."


@dataclass(frozen=True)
class Upload:
    """What came.

    Attributes:
        image: a file's bytes.
        mask: another's, or None.
    """

    image: bytes
    mask: bytes | None = None


async def read_upload(request: Request, limits: Limits) -> Upload:
    """Reads an image, and perhaps a mask.

    Raises:
        Problem: 408, 413, 415, or 422 for a form without an image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not (form or kind.startswith("image/") or kind == "application/octet-stream"):
        raise Problem(415, f"The content type is {kind or 'missing'}.", _KINDS)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "The body is compressed.", "Send it as it is: images are compressed already.")
    body = await _bounded(request, limits)
    if form:
        return await _from_form(request, body)
    if not body:
        raise Problem(400, "The body is empty.", _KINDS)
    return Upload(body)


async def _bounded(request: Request, limits: Limits) -> bytes:
    too_large = Problem(413, "The body is too large.", f"At most {limits.body_bytes:,} bytes are taken.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.receive_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise Problem(
            408, f"The body took longer than {limits.receive_seconds:g} s.", "Send it faster.", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise Problem(499, "The client went away.", "") from None
    return bytes(body)


async def _from_form(request: Request, body: bytes) -> Upload:
    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, replay).form(max_files=2, max_fields=0) as fields:
            files = {
                name: await value.read()
                for name, value in fields.items()
                if name in ("image", "mask") and isinstance(value, UploadFile)
            }
    except HTTPException as error:
        raise Problem(422, f"The form cannot be read: {error.detail}", _KINDS) from None
    except (LookupError, UnicodeError):
        raise Problem(422, "The form's names are in an unknown encoding.", _KINDS) from None
    if not files.get("image"):
        raise Problem(422, "The form has no file `image`.", _KINDS)
    return Upload(files["image"], files.get("mask"))

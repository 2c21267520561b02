"""The application under uvicorn: one process, which finishes what is under way when it is told to stop."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from ..commands import say
from ..errors import OptionError

# Connections beside the queue's: those that send or receive.
_CONNECTIONS = 256


def run(app: FastAPI, host: str, port: int, seconds: float) -> None:
    """Serves until the process is told to stop.

    Args:
        app: the application.
        host: address to listen on.
        port: 0 for a free one.
        seconds: that requests under way have left after that.

    Raises:
        OptionError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off, which costs 40 ms an answer, where the protocol is named.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        raise OptionError(f"{host}:{port} cannot be listened on: {error.strerror}.", "Name another --port.") from None
    say(f"Serving on http://{host}:{listening.getsockname()[1]} (API at /docs); Ctrl+C stops.")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, limit_concurrency=_CONNECTIONS, timeout_keep_alive=5,
        timeout_graceful_shutdown=int(seconds) + 1, server_header=False,
    )  # fmt: skip
    uvicorn.Server(config).run([listening])

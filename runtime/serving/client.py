"""A client: `Client("http://127.0.0.1:8000").reconstruct("chair.png", format="glb").save("chair.glb")`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from ..errors import WaveletTriplaneError
from ..files import atomic_write

# Seconds before another try, and at the most.
_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


class ServerError(WaveletTriplaneError):
    """The server answered with a problem.

    Attributes:
        status: of HTTP.
        retry_after: seconds after which to try again, or None.
    """

    def __init__(self, cause: str, remedy: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(cause, remedy)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Result:
    """An answer.

    Attributes:
        content: of the file.
        media_type: of the content.
        seed: of the diffusion's noise.
        milliseconds: of each stage.
        notes: what a user should know, or "".
    """

    content: bytes
    media_type: str
    seed: int
    milliseconds: dict[str, float]
    notes: str

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all."""
        with atomic_write(Path(path)) as partial:
            partial.write_bytes(self.content)


class Client:
    """Sends images to a server.

    Args:
        address: such as "http://127.0.0.1:8000".
        token: that the server wants, or None.
        timeout: seconds, of each try.
        retries: further tries where the connection broke, a replica was lost or the queue was full. A request may so be
            worked on twice; with a seed both give the same.
    """

    def __init__(self, address: str, token: str | None = None, timeout: float = 90.0, retries: int = 2) -> None:
        self._retries = retries
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)

    def reconstruct(self, image: str | Path | bytes, mask: str | Path | bytes | None = None, **options: Any) -> Result:
        """Reconstructs an object.

        Args:
            image: a path, or a file's bytes.
            mask: of the object, likewise; None without one.
            options: as /docs of the server lists them; `format` may be a list.

        Raises:
            ServerError: with the server's cause and remedy.
        """
        files = {"image": _read(image)} | ({} if mask is None else {"mask": _read(mask)})
        for left in range(self._retries, -1, -1):
            try:
                answer = self._checked(self._http.post("/v1/reconstructions", params=options, files=files))
                break
            except ServerError as error:
                if left == 0 or error.retry_after is None:
                    raise
                time.sleep(min(error.retry_after, _LONGEST_PAUSE))
            except httpx.TransportError as error:
                # What takes too long would take as long again.
                if left == 0 or isinstance(error, httpx.ReadTimeout):
                    raise ServerError(f"The server does not answer: {error}.", "Look whether it runs.") from error
                time.sleep(_PAUSE)
        parts = (part.strip().partition(";dur=") for part in answer.headers["server-timing"].split(","))
        return Result(
            answer.content, answer.headers["content-type"], int(answer.headers["x-seed"]),
            {stage: float(value) for stage, _, value in parts}, answer.headers["x-notes"],
        )  # fmt: skip

    @staticmethod
    def _checked(answer: httpx.Response) -> httpx.Response:
        if not answer.is_error:
            return answer
        ours = "json" in answer.headers.get("content-type", "")
        problem = answer.json() if ours else {}
        after = answer.headers.get("retry-after")
        seconds = float(after) if after and after.isdecimal() else None
        if not ours and answer.status_code >= 500:
            # What stands before the server lost it, or found none free.
            seconds = _PAUSE
        cause = problem.get("detail") or f"The server answered {answer.status_code}."
        raise ServerError(cause, problem.get("remedy", ""), answer.status_code, seconds)

    def bundle(self) -> dict[str, Any]:
        """Says what is served."""
        found: dict[str, Any] = self._http.get("/v1/bundle").raise_for_status().json()
        return found

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(file: str | Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else Path(file).read_bytes()

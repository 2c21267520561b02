"""The server as a process: real sockets, SIGTERM, slow senders, clients that go away."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from runtime.serving.client import Client, ServerError
from tests.serving.test_app import png


@pytest.fixture
def server(tiny_bundle):
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime", "serve", "--port", "0", "--bundle", str(tiny_bundle), "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    address = re.search(r"http://[\d.]+:\d+", line)
    assert address, line + process.stderr.read()
    for _ in range(600):
        if httpx.get(f"{address[0]}/readyz").status_code == 200:
            break
        time.sleep(0.05)
    yield process, address[0]
    process.kill()
    process.communicate()


def test_sigterm_finishes_what_is_under_way(server):
    process, address = server
    answers = []

    def ask():
        with Client(address) as client:
            answers.append(client.reconstruct(png(), steps=50, size=192, samples=64, seed=1))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    asking.join(60)
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert answers
    assert answers[0].content.startswith(b"\x89PNG")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz")


def test_a_client_asks_a_server(server, tmp_path):
    with Client(server[1]) as client:
        result = client.reconstruct(png(), format="png", steps=1, size=16, seed=3)
        assert (result.seed, result.media_type) == (3, "image/png")
        assert result.milliseconds["render"] > 0
        result.save(tmp_path / "view.png")
        assert (tmp_path / "view.png").read_bytes() == result.content
        with pytest.raises(ServerError, match="image") as raised:
            client.reconstruct(b"no image at all")
        assert raised.value.status == 400
        assert client.bundle()["backend"] == "cpu"


def connected(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_slow_and_endless_senders_stop_nobody(server):
    _, address = server
    head = "POST /v1/reconstructions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    slow = [connected(address) for _ in range(50)]
    for each in slow:
        each.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
    endless = connected(address)
    endless.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    with Client(address) as client:
        assert client.reconstruct(png(), steps=1, size=16).content
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    answer = b""
    try:
        for _ in range(64):
            endless.sendall(chunk)
    except OSError:
        pass
    with contextlib.suppress(OSError):
        answer = endless.recv(4096)
    assert answer == b"" or b" 413 " in answer
    large = connected(address)
    try:
        large.sendall(b"GET / HTTP/1.1\r\nX-Large: " + b"x" * 1_000_000 + b"\r\n\r\n")
        assert b" 400 " in large.recv(4096) or b" 431 " in large.recv(4096)
    except OSError:
        pass  # Closed before all of it was read.
    for each in (*slow, endless, large):
        each.close()
    assert httpx.get(f"{address}/healthz").status_code == 200


def test_clients_that_go_away_leave_nothing_behind(server):
    _, address = server
    body = png()
    head = (
        "POST /v1/reconstructions?steps=50&size=192&samples=64 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Content-Type: image/png\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(10):
        each = connected(address)
        each.sendall(head + body)
        each.close()
    deadline = time.monotonic() + 30
    while "wavelet_triplane_pending 0.0" not in httpx.get(f"{address}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with Client(address) as client:
        assert client.reconstruct(body, steps=1, size=16).content


def test_an_open_address_wants_a_token_and_a_taken_port_is_said(server):
    _, address = server
    environment = {k: v for k, v in os.environ.items() if k != "WAVELET_TRIPLANE_TOKEN"}
    command = [sys.executable, "-m", "runtime", "serve"]
    for arguments, said in (
        (["--host", "0.0.0.0"], "WAVELET_TRIPLANE_TOKEN"),
        (["--port", address.rpartition(":")[2]], "cannot be listened on"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

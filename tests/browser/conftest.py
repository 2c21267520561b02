"""A headless Chromium, where there is one."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

# WebGL without a GPU; the rest keeps Chromium from calling its maker's hosts.
_FLAGS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# WebGPU without a GPU.
_WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]


@pytest.fixture(scope="session")
def launch():
    """Starts a browser that Playwright drives, with more flags."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        yield lambda flags: playwright.chromium.launch(executable_path=path, args=[*_FLAGS, *flags])


@pytest.fixture(scope="session")
def browser(launch):
    """A browser without WebGPU."""
    opened = launch([])
    yield opened
    opened.close()


@pytest.fixture
def webgpu_browser(launch):
    """A browser whose WebGPU is a software one."""
    opened = launch(_WEBGPU)
    yield opened
    opened.close()


@pytest.fixture
def folder_server(tmp_path):
    """A folder, and its address on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()

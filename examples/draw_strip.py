"""Draws README's strip: photographs, views of what is made of each, its mesh in a browser.

`python examples/draw_strip.py OUT IMAGE...`; needs Playwright and a Chromium (see tests/browser).
"""

import io
import shutil
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import runtime

SIDE, SAMPLES, ANGLES = 224, 96, (-35, 10, 55)
VIEWER = Path(runtime.__file__).parent / "serving" / "page" / "model-viewer.min.js"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PAGE = """<!doctype html><script type="module" src="model-viewer.min.js"></script>
<style>body {margin: 0; overflow: hidden} model-viewer {width: 100vw; height: 100vh}</style>
<model-viewer src="object.glb" camera-orbit="30deg 75deg auto"
 tone-mapping="none" shadow-intensity="0.4"></model-viewer>"""


def main(out: Path, images: list[Path]) -> None:
    """Writes one row an image."""
    rows, folder = [], Path(tempfile.mkdtemp())
    shutil.copy(VIEWER, folder)
    (folder / "index.html").write_text(PAGE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with runtime.load() as rt, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for image in images:
            scene = rt.reconstruct(image, silhouette=True)
            given = Image.fromarray(np.uint8(255 * scene.source.detail()))
            tiles = [np.asarray(given.resize((SIDE, SIDE), Image.Resampling.LANCZOS))]
            for angle in ANGLES:
                view = scene.render(runtime.Camera.orbit(angle, 15), SIDE, SAMPLES, projected=True)
                tiles.append(view.to_uint8())
            scene.mesh(projected=True, faces=20_000, texture=1024).save(folder / "object.glb")
            page = browser.new_page(viewport={"width": 2 * SIDE, "height": 2 * SIDE})
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html?{len(rows)}")
            page.wait_for_function("document.querySelector('model-viewer').loaded")
            page.wait_for_timeout(1500)
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            tiles.append(np.asarray(shot.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
            page.close()
            rows.append(np.concatenate(tiles, axis=1))
    Image.fromarray(np.concatenate(rows)).quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])

"""The runtime in a browser beside the Python runtime: `python benchmarks/browser.py --site out/site`.

Headless Chromium, WebAssembly, the site on loopback. From the drop of an example to the object on the page on the first
visit (all is fetched), on the next (all is kept by the browser), and for a second picture on the same page.
Frames a second while the object turns are those of the browser's own drawing, here without a GPU. Memory is what the
page and its worker hold, as the browser counts it. The Python runtime's rows make a mesh of the same
size of the same picture, and show it nowhere.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

import runtime
from benchmarks.timing import machine
from export.to_web import server_of

FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
EXAMPLE, RESOLUTION = "chair", 96
_TURN = """async () => {
  const viewer = document.querySelector("model-viewer"), begun = performance.now();
  let frames = 0;
  while (performance.now() - begun < 3000) {
    viewer.cameraOrbit = `${frames * 4}deg 70deg auto`;
    viewer.jumpCameraToGoal();
    await new Promise(requestAnimationFrame);
    frames++;
  }
  return frames / 3;
}"""


def drop(page: Page) -> float:
    """Seconds from a click on the example to the object on the page."""
    begun = time.perf_counter()
    page.get_by_role("button", name=f"Example: {EXAMPLE}").click()
    page.get_by_text("Done in").wait_for(timeout=120_000)
    return time.perf_counter() - begun


def main(site: Annotated[Path, typer.Option(help="What export/to_web.py made.")] = Path("out/site")) -> None:
    """Measures the site."""
    server = server_of(site, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    table = Table("", "")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        context = browser.new_context(viewport={"width": 1200, "height": 800})
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}")
        page.locator("#where-it-goes").get_by_text("leave").wait_for()
        table.add_row("first visit, drop to object", f"{drop(page):.1f} s")
        page.reload()
        page.locator("#where-it-goes").get_by_text("leave").wait_for()
        table.add_row("next visit, drop to object", f"{drop(page):.1f} s")
        table.add_row("the same page, next picture", f"{drop(page):.1f} s")
        page.locator("model-viewer").scroll_into_view_if_needed()
        table.add_row("frames a second while it turns (no GPU)", f"{page.evaluate(_TURN):.0f}")
        used = page.evaluate("performance.measureUserAgentSpecificMemory().then((found) => found.bytes)")
        table.add_row("memory of page and worker", f"{used / 2**20:.0f} MiB")
        browser.close()
    server.shutdown()
    fetched = [path for path in site.rglob("*") if path.is_file() and "webgpu" not in path.name]
    size = sum(path.stat().st_size for path in fetched if "asyncify" not in path.name)
    table.add_row("bytes of a first visit without a GPU", f"{size / 1e6:.1f} MB")
    with runtime.load() as rt:
        image = Path("examples") / f"{EXAMPLE}.png"
        for name in ("Python runtime, first picture", "Python runtime, next picture"):
            begun = time.perf_counter()
            rt.reconstruct(image, silhouette=True).mesh(RESOLUTION, projected=True)
            table.add_row(name, f"{time.perf_counter() - begun:.2f} s")
    console = Console()
    console.print(table)
    console.print(machine(), highlight=False)


if __name__ == "__main__":
    typer.run(main)

"""A GLB in the viewer that people embed in pages, and before the Khronos group's validator."""

import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtime

ROOT = Path(__file__).parents[2]
VIEWER = ROOT / "runtime" / "serving" / "page" / "model-viewer.min.js"
PAGE = """<!doctype html><script type="module" src="model-viewer.min.js"></script>
<style>body {margin: 0} model-viewer {width: 400px; height: 400px; background: #fff}</style>
<model-viewer src="%s" camera-orbit="30deg 70deg auto" tone-mapping="none" shadow-intensity="0"></model-viewer>"""


@pytest.fixture(scope="module")
def mug():
    with runtime.load() as rt:
        scene = rt.reconstruct(ROOT / "examples" / "mug.png")
        frame = scene.render(runtime.Camera.orbit(30, 20), 200, projected=True)
        return scene.mesh(96, projected=True, faces=8000, texture=512), frame


@pytest.mark.parametrize("textured", [True, False], ids=["texture", "vertex colours"])
def test_a_browser_shows_the_object_in_its_colours(mug, textured, browser, folder_server):
    mesh, frame = mug
    folder, address = folder_server
    (mesh if textured else replace(mesh, texture=None)).save(folder / "mug.glb")
    shutil.copy(VIEWER, folder)
    (folder / "index.html").write_text(PAGE % "mug.glb")
    page = browser.new_page(viewport={"width": 400, "height": 400})
    problems, hosts = [], set()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "://" in request.url else None)
    page.goto(f"{address}/index.html")
    page.wait_for_function("document.querySelector('model-viewer').loaded", timeout=60_000)
    page.wait_for_timeout(1500)
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(float)
    page.close()
    assert [text for text in problems if "favicon" not in text and "404" not in text] == []
    assert hosts == {address.removeprefix("http://")}
    shown = (shot < 245).any(axis=2)
    assert 0.05 < shown.mean() < 0.9
    # The viewer lights what it shows: the hue is compared, not the brightness.
    drawn = frame.rgb[frame.alpha > 0.9].mean(0)
    seen = shot[shown].mean(0)
    cosine = drawn @ seen / np.linalg.norm(drawn) / np.linalg.norm(seen)
    assert cosine > 0.985, (drawn, seen / 255)


@pytest.mark.parametrize("textured", [True, False], ids=["texture", "vertex colours"])
def test_the_khronos_validator_finds_nothing(mug, textured, tmp_path):
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no node on this machine")
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "gltf-validator@2.0.0-dev.3.10"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode != 0:
        pytest.skip("npm could not install gltf-validator")
    mesh, _ = mug
    (mesh if textured else replace(mesh, texture=None)).save(tmp_path / "mug.glb")
    (tmp_path / "check.js").write_text(
        "require('gltf-validator').validateBytes(new Uint8Array(require('fs').readFileSync('mug.glb')))"
        ".then(report => console.log(JSON.stringify(report)))"
    )
    report = json.loads(subprocess.run([node, "check.js"], cwd=tmp_path, capture_output=True, check=True).stdout)
    assert report["info"]["totalTriangleCount"] == len(mesh.faces)
    found = report["issues"]
    assert (found["numErrors"], found["numWarnings"]) == (0, 0), found["messages"]

"""The page as people use it: an image in, an object to turn, a GLB down; on a desktop and on a phone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

ROOT = Path(__file__).parents[2]
# Where to keep screenshots for looking at; nowhere if unset.
SHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture(scope="module")
def address():
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    yield re.search(r"http://[\d.]+:\d+", process.stdout.readline())[0]
    process.kill()
    process.communicate()


@pytest.fixture(params=[(1200, 800), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, address):
    opened = browser.new_page(viewport=dict(zip(("width", "height"), request.param, strict=True)))
    opened.set_default_timeout(60_000)
    opened.problems, opened.hosts = [], set()
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("request", lambda r: opened.hosts.add(r.url.split("/")[2]) if r.url.startswith("http") else None)
    opened.goto(address)
    yield opened
    if SHOTS:
        Path(SHOTS).mkdir(exist_ok=True)
        opened.screenshot(path=f"{SHOTS}/{request.node.name}.png", full_page=True)
    opened.close()


def test_an_example_becomes_an_object_that_turns_and_a_glb(page, address, tmp_path):
    page.get_by_role("button", name="Example: chair").click()
    page.get_by_text("Done in").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    viewer = page.locator("model-viewer")
    before = viewer.evaluate("v => v.getCameraOrbit().theta")
    viewer.scroll_into_view_if_needed()
    box = viewer.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 80, middle[1], steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert abs(viewer.evaluate("v => v.getCameraOrbit().theta") - before) > 0.2
    with page.expect_download() as download:
        page.get_by_role("button", name="GLB").click()
    download.value.save_as(tmp_path / "object.glb")
    assert len(trimesh.load_scene(tmp_path / "object.glb").to_mesh().faces) > 1000
    assert page.problems == []
    assert page.hosts == {address.removeprefix("http://")}


def test_a_picked_file_and_an_error_in_words(page, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    page.locator("#message.error").wait_for()
    assert "image" in page.locator("#message").inner_text()
    page.locator("#file").set_input_files(ROOT / "examples" / "mug.png")
    page.get_by_text("Done in").wait_for()
    assert page.problems == []


def test_the_keyboard_is_enough(page):
    page.get_by_role("button", name="Example: mug").focus()
    page.keyboard.press("Enter")
    page.get_by_text("Done in").wait_for()
    assert page.locator("#message").inner_text().startswith("Done")
    assert page.locator("model-viewer").get_attribute("alt")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter(e => !e.closest('[hidden]') &&"
        " !(e.innerText || e.labels?.length || e.querySelector('img[alt]'))).length"
    )
    assert unnamed == 0

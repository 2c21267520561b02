"""The application in one process: answers, options, limits, and errors as problem documents."""

import asyncio
import io
import os
import re
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient as StarletteClient
from PIL import Image

import runtime
from runtime.serving.app import Service, create_app
from runtime.serving.body import Upload
from runtime.serving.options import Limits, Options
from runtime.serving.problems import Problem


def client_of(app):
    """A client of this machine's own name."""
    return StarletteClient(app, base_url="http://127.0.0.1")


def png(size=64, alpha=True):
    y, x = np.mgrid[0:size, 0:size] - size // 2
    image = np.full((size, size, 4), 255, np.uint8)
    disc = np.hypot(x, y) < size // 3
    image[disc, 1:3] = 40
    if alpha:
        image[..., 3] = 255 * disc
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def rt(tiny_bundle):
    with runtime.load(tiny_bundle, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tiny_bundle):
    limits = Limits(body_bytes=200_000, pixels=1_000_000)
    with client_of(create_app(runtime.load(tiny_bundle, threads=1), limits)) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
        yield client


def post(client, body=None, kind="image/png", **options):
    content = png() if body is None else body
    return client.post("/v1/reconstructions", content=content, headers={"Content-Type": kind}, params=options)


def problem_of(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status
    assert found["detail"]
    assert found["request_id"] == answer.headers["x-request-id"]
    return found


def test_an_answer_is_what_the_runtime_draws(served, rt):
    answer = post(served, seed=7, steps=2, size=48, azimuth=30, elevation=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    drawn = rt.reconstruct(png(), steps=2, seed=7, silhouette=True).render(
        runtime.Camera.orbit(30, 10), 48, projected=True
    )
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), drawn.to_uint8())
    assert answer.headers["x-seed"] == "7"
    stages = {part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")}
    assert {"image", "coarse", "step", "render"} <= stages


def test_a_drawn_seed_gives_the_same_answer_again(served):
    first = post(served, steps=1, size=32)
    again = post(served, steps=1, size=32, seed=first.headers["x-seed"])
    assert again.content == first.content


def test_several_formats_come_as_a_zip_that_reads(served, rt):
    formats = ["png", "depth", "normals", "input", "webp", "gif", "npz"]
    answer = post(served, format=formats, steps=1, size=32, seed=1, frames=3)
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    assert len(files) == len(formats)
    with Image.open(io.BytesIO(files["object.webp"])) as opened:
        assert opened.n_frames == 3
    assert np.asarray(Image.open(io.BytesIO(files["object_depth.png"]))).dtype == np.uint16
    planes = np.load(io.BytesIO(files["object.npz"]))["triplane"]
    np.testing.assert_array_equal(planes, rt.reconstruct(png(), steps=1, seed=1).triplane)


def test_a_form_may_bring_a_mask(served):
    mask = Image.fromarray(np.uint8(255 * (np.hypot(*(np.mgrid[0:64, 0:64] - 32)) < 15)))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    files = {"image": ("a.png", png(alpha=False)), "mask": ("m.png", buffer.getvalue())}
    answer = served.post("/v1/reconstructions", files=files, params={"format": "input", "steps": 1})
    assert answer.status_code == 200, answer.text
    without = served.post(
        "/v1/reconstructions", files={"image": files["image"]}, params={"format": "input", "steps": 1}
    )
    assert answer.content != without.content


@pytest.mark.parametrize(
    ("body", "kind", "options", "status", "said"),
    [
        (b"no image", "image/png", {}, 400, "image"),
        (b"", "image/png", {}, 400, "empty"),
        (b"{}", "application/json", {}, 415, "application/json"),
        (b"x" * 300_000, "image/png", {}, 413, "too large"),
        (None, "image/png", {"steps": 0}, 422, "steps"),
        (None, "image/png", {"size": 5000}, 422, "size"),
        (None, "image/png", {"format": "fbx"}, 422, "format"),
        (None, "image/png", {"path": "/etc/passwd"}, 422, "path"),
        (None, "image/png", {"seed": "x"}, 422, "seed"),
        (None, "image/png", {"azimuth": "nan"}, 422, "azimuth"),
        (b"--x--", "multipart/form-data; boundary=x", {}, 422, "image"),
        (b"junk", "multipart/form-data", {}, 422, "form"),
    ],
)
def test_bad_input_is_a_problem_with_its_cause(served, body, kind, options, status, said):
    found = problem_of(post(served, body, kind, **options), status)
    assert said in found["detail"]


def test_an_image_of_too_many_pixels_is_refused_by_its_header(served):
    buffer = io.BytesIO()
    Image.new("1", (4000, 4000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 10_000
    assert "4000x4000" in problem_of(post(served, buffer.getvalue()), 413)["detail"]


def test_a_compressed_body_is_refused(served):
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    problem_of(served.post("/v1/reconstructions", content=b"\x1f\x8b", headers=headers), 415)


def test_an_empty_image_is_the_runtimes_own_words(served):
    buffer = io.BytesIO()
    Image.new("RGBA", (32, 32)).save(buffer, "PNG")
    found = problem_of(post(served, buffer.getvalue()), 400)
    assert "transparent" in found["detail"]
    assert found["remedy"]


def test_other_paths_are_problems_too(served):
    problem_of(served.get("/v1/nothing"), 404)
    problem_of(served.put("/v1/bundle"), 405)


def test_what_is_served_and_how_it_is(served, rt):
    assert served.get("/healthz").json() == {"status": "ok"}
    found = served.get("/v1/bundle").json()
    assert (found["name"], found["trained"]) == (rt.bundle.name, rt.bundle.trained)
    assert found["limits"]["body_bytes"] == 200_000
    post(served, steps=1, size=16)
    figures = served.get("/metrics").text
    assert 'wavelet_triplane_requests_total{path="/v1/reconstructions",status="200"}' in figures
    assert 'wavelet_triplane_stage_seconds_bucket{le="0.005",stage="coarse"}' in figures
    document = served.get("/openapi.json").json()
    assert {"200", "400", "413", "415", "503", "504"} <= set(
        document["paths"]["/v1/reconstructions"]["post"]["responses"]
    )


def test_the_page_brings_all_it_needs(served):
    page = served.get("/")
    assert page.status_code == 200
    for name in ("page.js", "style.css", "model-viewer.min.js", "examples/chair.png"):
        assert served.get(f"/{name}").status_code == 200
        assert name in page.text
    assert "http://" not in page.text + served.get("/page.js").text
    assert "https://" not in page.text + served.get("/page.js").text


def test_a_request_id_is_kept_if_it_is_one(served):
    assert served.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert served.get("/healthz", headers={"X-Request-Id": "a b\t"}).headers["x-request-id"] != "a b\t"


def test_a_token_is_asked_for(tiny_bundle):
    with client_of(create_app(runtime.load(tiny_bundle, threads=1), token="secret")) as client:
        problem_of(client.get("/v1/bundle"), 401)
        problem_of(client.get("/v1/bundle", headers={"Authorization": "Bearer wrong"}), 401)
        assert client.get("/v1/bundle", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_an_altered_bundle_is_said_by_readyz(tiny_bundle, tmp_path):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    with client_of(create_app(runtime.load(copy, threads=1))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
        os.utime(copy / "manifest.json", (1, 1))
        assert "altered" in problem_of(client.get("/readyz"), 503)["detail"]


def in_a_loop(coroutine):
    """Runs a coroutine in a thread: beside a browser, Playwright has a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_work_under_way_stops_when_its_time_is_up(rt, monkeypatch):
    drawn = []

    class Slow(runtime.Scene):
        def render(self, *arguments, **options):
            drawn.append(time.monotonic())
            time.sleep(0.05)
            return super().render(*arguments, **options)

    original = rt.reconstruct

    def reconstruct(*arguments, **options):
        (scene,) = original(*arguments, **options)
        scene.__class__ = Slow
        return [scene]

    monkeypatch.setattr(rt, "reconstruct", reconstruct)
    service = Service(rt, Limits())

    async def scenario():
        options = Options(format=["webp"], frames=120, size=16, samples=4)
        member = service.groups.join(Upload(png()), options, 0)
        with pytest.raises(Problem) as late:
            await service.scheduler.run(lambda stopped: service.reconstruct(member, options, stopped), 1.5)
        assert late.value.status == 504
        await service.scheduler.close()

    in_a_loop(scenario())
    assert 0 < len(drawn) < 100


def test_an_upload_to_a_full_queue_is_refused_before_it_is_read(tiny_bundle):
    app = create_app(runtime.load(tiny_bundle, threads=1))
    with client_of(app) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
        app.state.service.scheduler.pending = 100

        async def receive():
            raise AssertionError("the body was read")

        sent = []

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"image/png")]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/reconstructions", "query_string": b"", "headers": headers,
            "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": "",
        }  # fmt: skip
        in_a_loop(app(scope, receive, send))
        assert sent[0]["status"] == 503
        app.state.service.scheduler.pending = 0


def test_a_warm_up_that_fails_is_said(tiny_bundle, monkeypatch):
    opened = runtime.load(tiny_bundle, threads=1)

    def fail(*_, **__):
        raise runtime.BackendError("The device is gone.", "Plug it in.")

    monkeypatch.setattr(opened, "reconstruct", fail)
    with client_of(create_app(opened)) as client:
        end = time.monotonic() + 10
        while "failed" not in client.get("/readyz").json()["detail"] and time.monotonic() < end:
            time.sleep(0.02)
        assert "The warm-up failed: The device is gone." in problem_of(client.get("/readyz"), 503)["detail"]


def test_no_background_model_is_downloaded_for_a_request(served, monkeypatch):
    monkeypatch.setattr(runtime.Runtime, "has_background_model", property(lambda _: False))
    problem = problem_of(post(served, png(alpha=False), background="rembg"), 422)
    assert "no model for background=rembg" in problem["detail"]


def test_an_image_that_pillow_itself_refuses_is_too_large(served):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    assert "too many pixels" in problem_of(post(served, image), 413)["detail"]


def test_the_documentation_asks_no_other_host(served):
    page = served.get("/docs").text
    assert "swagger" in page.lower()
    assert not [where for where in re.findall(r"(?:src|href)=\"([^\"]+)\"", page) if "//" in where]


def test_serving_is_not_imported_with_the_runtime():
    import subprocess
    import sys

    code = "import sys, runtime; assert not {'fastapi', 'pydantic', 'runtime.serving'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pages_of_other_sites_and_other_names_are_refused_without_a_token(served):
    problem_of(served.get("/v1/bundle", headers={"Origin": "http://evil.example"}), 403)
    problem_of(served.get("/v1/bundle", headers={"Host": "evil.example"}), 403)
    assert served.get("/v1/bundle", headers={"Host": "localhost:8000", "Origin": "http://localhost:8000"}).is_success


def test_any_name_is_taken_where_others_guard_the_network(tiny_bundle):
    with client_of(create_app(runtime.load(tiny_bundle, threads=1), any_host=True)) as client:
        assert client.get("/v1/bundle", headers={"Host": "cluster.example"}).is_success

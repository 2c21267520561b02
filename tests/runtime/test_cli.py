"""The command line, and what importing the package costs."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import runtime
from export.bundle_writer import write_manifest


def command(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "runtime", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "thing.png"
    y, x = np.mgrid[0:80, 0:80] - 40
    image = np.zeros((80, 80, 4), np.uint8)
    image[..., 0], image[..., 3] = 200, 255 * (np.hypot(x, y) < 30)
    Image.fromarray(image).save(path)
    return path


def test_render_writes_the_pictures_it_names(photo, tiny_bundle, tmp_path):
    out = tmp_path / "out"
    done = command("render", photo, "--out", out, "--bundle", tiny_bundle, "--orbit", 3, "--size", 20, "--times")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in out.iterdir())
    assert names == ["thing.png", "thing_orbit_000.png", "thing_orbit_001.png", "thing_orbit_002.png"]
    assert Image.open(out / "thing.png").size == (20, 20)
    assert "coarse" in done.stdout
    with runtime.load(tiny_bundle) as rt:
        np.testing.assert_array_equal(np.asarray(Image.open(out / "thing.png")), rt.render(photo, image_size=20))
    assert "\x1b" not in done.stdout + done.stderr, "no progress bar off a terminal"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere.png",),
        ("{photo}", "--steps", 0),
        ("{photo}", "--backend", "quantum"),
        ("{photo}", "--bundle", "nowhere"),
        ("{photo}", "--orbit", -1),
        ("{photo}", "--orbit", 200_000),
        ("{text}",),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(arguments, photo, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    out = tmp_path / "out"
    done = command("render", *(str(a).format(photo=photo, text=text) for a in arguments), "--out", out)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_the_input_is_never_overwritten(photo, tiny_bundle):
    before = photo.read_bytes()
    done = command("render", photo, "--out", photo.parent, "--bundle", tiny_bundle)
    assert done.returncode == 1
    assert "overwrite the input" in done.stderr
    assert photo.read_bytes() == before


def test_names_with_brackets_are_names(photo, tiny_bundle, tmp_path):
    odd = photo.rename(tmp_path / "a [final].png")
    done = command("render", odd, "--out", tmp_path / "o[/x]", "--bundle", tiny_bundle, "--size", 8, "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert "a [final].png" in done.stdout


def test_info_doctor_and_bench_answer(photo, tiny_bundle):
    info = command("info", "--bundle", tiny_bundle)
    assert info.returncode == 0
    assert "tiny" in info.stdout
    assert "cpu (" in info.stdout
    doctor = command("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "onnxruntime" in doctor.stdout
    bench = command("bench", photo, "--bundle", tiny_bundle, "--runs", 2, "--size", 16)
    assert bench.returncode == 0
    assert "render" in bench.stdout


@pytest.mark.parametrize("trained", [False, True])
def test_an_untrained_bundle_says_so_and_only_that(trained, photo, tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text()) | {"trained": trained}
    write_manifest(bundle, {key: manifest[key] for key in manifest if key not in ("sha256", "format_version")})
    done = command("render", photo, "--bundle", bundle, "--out", tmp_path / "out", "--size", 8, "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert ("untrained" in done.stderr) != trained


CLEAN = """
import sys, time
import numpy, onnxruntime
start = time.perf_counter()
import runtime
took = time.perf_counter() - start
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "model", "export", "einops", "diffusers"})
print(took, heavy)
"""


def test_importing_the_runtime_is_quick_and_brings_no_torch(tmp_path):
    runs = [
        subprocess.run([sys.executable, "-c", CLEAN], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
        for _ in range(3)
    ]
    assert all(run.strip().endswith("[]") for run in runs), runs
    assert min(float(run.split()[0]) for run in runs) < 0.5

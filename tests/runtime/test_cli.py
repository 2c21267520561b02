"""The command line, and what importing the package costs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

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
        np.testing.assert_array_equal(
            np.asarray(Image.open(out / "thing.png")), rt.render(photo, image_size=20, projected=True, silhouette=True)
        )
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


def test_one_image_s_orbit_leaves_another_image_s_files(photo, tiny_bundle, tmp_path):
    other, out = photo.with_name(f"{photo.stem}_orbit_900.png"), tmp_path / "out"
    other.write_bytes(photo.read_bytes())
    done = command("render", other, photo, "--orbit", 1, "--size", 16, "--out", out, "--bundle", tiny_bundle)
    assert done.returncode == 0, done.stderr
    assert (out / other.name).exists()
    assert (out / f"{photo.stem}_orbit_000.png").exists()


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
    write_manifest(bundle, manifest)
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


def test_what_others_wrote_is_not_replaced(photo, tiny_bundle, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thing.png").write_bytes(b"holiday")
    arguments = ("render", photo, "--out", out, "--bundle", tiny_bundle, "--size", 8, "--steps", 1)
    done = command(*arguments)
    assert done.returncode == 1
    assert "was not written by this program" in done.stderr
    assert (out / "thing.png").read_bytes() == b"holiday"
    assert command(*arguments, "--overwrite").returncode == 0
    assert command(*arguments, "--orbit", 3).returncode == 0, "its own files may be replaced"
    assert command(*arguments, "--orbit", 1).returncode == 0
    assert sorted(path.name for path in out.iterdir()) == ["thing.png", "thing_orbit_000.png"]


def test_an_opaque_photograph_and_a_mask_by_the_command_line(tiny_bundle, tmp_path):
    y, x = np.mgrid[0:120, 0:120] - 60
    disc = np.hypot(x, y) < 40
    Image.fromarray(np.where(disc[..., None], [200, 30, 30], [180, 185, 190]).astype(np.uint8)).save(tmp_path / "p.jpg")
    Image.fromarray(disc).save(tmp_path / "mask.png")
    inputs = []
    for options in (("--background", "plain"), ("--mask", tmp_path / "mask.png"), ()):
        done = command(
            "render", tmp_path / "p.jpg", "--out", tmp_path / "out", "--bundle", tiny_bundle, "--size", 8, "--steps", 1,
            "--save-input", *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        inputs.append(np.asarray(Image.open(tmp_path / "out" / "p_input.png")).astype(int))
    assert inputs[0].shape == (64, 64, 3)
    assert inputs[0][0, 0].tolist() == [255, 255, 255]
    for other in inputs[1:]:
        assert np.abs(other - inputs[0]).mean() < 6
    done = command("render", tmp_path / "p.jpg", "--background", "blur", "--out", tmp_path / "none")
    assert done.returncode == 1
    assert "auto, keep, plain, rembg" in done.stderr


def test_standard_input_is_an_image(photo, tiny_bundle, tmp_path):
    arguments = ["render", "-", "--out", tmp_path / "o", "--bundle", tiny_bundle, "--size", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "runtime", *arguments], input=photo.read_bytes(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "stdin.png").is_file()


def test_the_console_command_is_not_shadowed_by_the_working_folder(photo, tiny_bundle, tmp_path):
    (tmp_path / "runtime.py").write_text("raise SystemExit('a user has a runtime.py')")
    (tmp_path / "model").mkdir()
    script = Path(sys.executable).with_name("wavelet-triplane")
    if not script.exists():
        pytest.skip("the package is not installed")
    arguments = [script, "render", photo, "--out", tmp_path / "out", "--bundle", tiny_bundle, "--size", "8"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "PYTHONPATH" in done.stderr
    assert "Traceback" not in done.stderr


def test_several_images_and_folders_go_on_after_a_bad_one(photo, tiny_bundle, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(photo.read_bytes())
    (folder / "b.png").write_text("no image")
    (folder / "notes.txt").write_text("left alone")
    arguments = ("--out", tmp_path / "out", "--bundle", tiny_bundle, "--size", 8, "--steps", 1)
    done = command("render", photo, folder, *arguments)
    assert done.returncode == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "thing.png"]
    assert "1 of 3 images failed" in done.stderr.strip().splitlines()[-1]
    (folder / "thing.png").write_bytes(photo.read_bytes())
    done = command("render", photo, folder, *arguments)
    assert done.returncode == 1
    assert "would both write thing.png" in done.stderr
    # Of one image the depths would be the other's view.
    (folder / "thing.png").rename(folder / "thing_depth.png")
    done = command("render", photo, folder / "thing_depth.png", "--depth", *arguments)
    assert done.returncode == 1
    assert "would both write thing_depth.png" in done.stderr


@pytest.mark.parametrize("ending", ["webp", "gif", "png"])
def test_a_turntable_is_an_endless_animation_that_may_be_written_again(ending, photo, tiny_bundle, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        done = command(
            "render", photo, "--out", out, "--bundle", tiny_bundle, "--size", 16, "--steps", 1, "--turntable", ending,
            "--frames", 5,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    name = "thing_turntable.png" if ending == "png" else f"thing.{ending}"
    with Image.open(out / name) as opened:
        assert (opened.n_frames, opened.size, opened.info["loop"]) == (5, (16, 16), 0)
    assert command("render", photo, "--out", out, "--turntable", "avi").returncode == 1


def test_views_may_leave_the_background_out_and_have_depths_and_normals_beside_them(photo, tiny_bundle, tmp_path):
    out = tmp_path / "out"
    arguments = ("--out", out, "--bundle", tiny_bundle, "--size", 24, "--steps", 1)
    extras = ("--orbit", 3, "--transparent", "--depth", "--normals", "--contact-sheet", "--turntable", "webp")
    done = command("render", photo, *arguments, *extras, "--frames", 4)
    assert done.returncode == 0, done.stderr
    names = [f"thing{view}{kind}.png" for view in ("", "_orbit_000") for kind in ("", "_depth", "_normals")]
    for name in [*names, "thing_sheet.png", "thing.webp"]:
        assert (out / name).exists(), name
    with runtime.load(tiny_bundle) as rt:
        frame = rt.reconstruct(photo, steps=1, silhouette=True).render(image_size=24, projected=True, normals=True)
    rgba = np.asarray(Image.open(out / "thing.png")).astype(int)
    assert rgba.shape == (24, 24, 4)
    over_white = rgba[..., :3] * (rgba[..., 3:] / 255) + 255 - rgba[..., 3:]
    assert np.abs(over_white - frame.rgb * 255).max() < 1.6
    with Image.open(out / "thing_depth.png") as opened:
        depth, note = np.asarray(opened), opened.info["Comment"]
    assert "1/10000 scene units" in note
    solid = frame.alpha >= 0.5
    np.testing.assert_allclose(depth / 10_000, frame.depth * solid, atol=6e-5)
    normals = np.asarray(Image.open(out / "thing_normals.png")) / 127.5 - 1
    np.testing.assert_allclose(normals, frame.normals * solid[..., None], atol=0.005)
    assert Image.open(out / "thing_sheet.png").size == (48, 48)
    with Image.open(out / "thing.webp") as opened:
        assert (opened.n_frames, opened.mode) == (4, "RGBA")
    # A shorter orbit takes the views of the longer one away, with what lies beside them.
    assert command("render", photo, *arguments, "--orbit", 1).returncode == 0
    assert sorted(path.name for path in out.glob("*_orbit_*")) == ["thing_orbit_000.png"]


def test_a_turntable_as_mp4_is_read_by_pyav(photo, tiny_bundle, tmp_path):
    av = pytest.importorskip("av")
    arguments = ("--bundle", tiny_bundle, "--steps", 1, "--turntable", "mp4", "--frames", 6, "--out", tmp_path / "out")
    for _ in range(2):
        done = command("render", photo, "--size", 33, *arguments)
        assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "out" / "thing.mp4")) as opened:
        frames = list(opened.decode(video=0))
        assert (len(frames), frames[0].width, frames[0].height) == (6, 32, 32)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_the_mesh_command_writes_what_trimesh_reads(ending, photo, tmp_path):
    import trimesh

    path = tmp_path / f"thing.{ending}"
    done = command("mesh", photo, "--out", path, "--texture", 128, "--faces", 2000, "--scale", 0.5, "--ground")
    assert done.returncode == 0, done.stderr
    read = trimesh.load_scene(path).to_mesh()
    assert len(read.faces) <= 2000
    assert np.ptp(read.bounds, axis=0).max() == pytest.approx(0.5, rel=1e-3)
    assert read.bounds[0, 1] == pytest.approx(0, abs=1e-4)
    assert read.volume > 0
    assert command("mesh", photo, "--out", path, "--faces", 1000).returncode == 0, "its own file may be replaced"


def test_the_mesh_command_refuses_what_it_cannot_write(photo, tmp_path):
    (tmp_path / "mine_texture.png").write_bytes(photo.read_bytes())
    for arguments, said in (
        (("--out", tmp_path / "a.fbx"), "cannot be written"),
        (("--out", tmp_path / "a.glb", "--up", "z"), "y up"),
        (("--out", tmp_path / "mine.obj"), "mine_texture.png exists"),
        (("--out", tmp_path / "a.glb", "--scale", -1), "scale"),
    ):
        done = command("mesh", photo, *arguments)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine_texture.png", "thing.png"]

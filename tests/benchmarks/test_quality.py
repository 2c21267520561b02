"""The quality benchmark: its figures on known pictures and surfaces, and one small run of the whole command."""

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from typer.testing import CliRunner

import model.training as training
import runtime
from benchmarks import quality
from model.training.config import HELD_OUT_SEED, VALIDATION_SEED, load_config
from model.training.data.posed import write_transforms
from model.training.dataset import procedural_views
from model.training.procedural.objects import make_objects
from model.training.procedural.solids import distance_and_colour
from model.training.teacher import Teacher
from runtime import Camera

LONG = Path(training.__file__).parent / "configs" / "long.toml"


def disc(radius, size=64, shift=0.0):
    y, x = np.mgrid[0:size, 0:size] / size * 2 - 1
    rgba = np.zeros((size, size, 4), np.float32)
    rgba[..., 0], rgba[..., 3] = 0.8, np.hypot(x - shift, y) < radius
    return rgba


def test_a_perfect_view_has_perfect_figures():
    truth = disc(0.5)
    figures = quality.view_figures(quality.over_white(truth), truth[..., 3], truth)
    assert figures == {"psnr": 60, "psnr_object": 60, "ssim": pytest.approx(1), "iou": 1, "sharpness": 1}


def test_figures_are_what_their_definitions_say():
    truth, drawn = disc(0.5), disc(0.5, shift=0.25)
    seen, target = quality.over_white(drawn), quality.over_white(truth)
    figures = quality.view_figures(seen, drawn[..., 3], truth)
    squared = np.square(seen - target).mean(-1)
    both, either = (drawn[..., 3] * truth[..., 3]).sum(), np.maximum(drawn[..., 3], truth[..., 3]) > 0
    assert figures["psnr"] == pytest.approx(-10 * np.log10(squared.mean()), rel=1e-5)
    assert figures["psnr_object"] == pytest.approx(-10 * np.log10(squared[either].mean()), rel=1e-5)
    assert figures["iou"] == pytest.approx(both / either.sum(), rel=1e-5)
    expected = structural_similarity(
        seen, target, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert figures["ssim"] == pytest.approx(expected)
    blank = quality.view_figures(np.ones((64, 64, 3), np.float32), np.zeros((64, 64)), truth)
    assert blank["iou"] == 0
    assert blank["psnr"] < blank["psnr_object"] + 30


def test_patches_of_the_truth_are_nearest_and_blur_is_far():
    rng = np.random.default_rng(0)
    distances = {}
    for name in ("same", "shifted", "blurred"):
        patches = quality.PatchDistance()
        for view in range(12):
            truth = np.ones((64, 64, 4), np.float32)
            truth[..., :3] = np.random.default_rng(view).random((64, 64, 3))
            drawn = truth[..., :3]
            if name == "shifted":
                drawn = np.roll(drawn, 9, axis=0)
            if name == "blurred":
                drawn = sum(np.roll(drawn, k, axis=1) for k in range(-3, 4)) / 7
            patches.add(drawn, truth)
        distances[name] = patches.value()
    assert distances["same"] == 0
    assert distances["shifted"] < 0.3 * distances["blurred"], "where details are does not matter, that they are does"
    nothing = quality.PatchDistance()
    nothing.add(rng.random((64, 64, 3), np.float32), np.zeros((64, 64, 4), np.float32))
    assert nothing.value() == 0


def test_sharpness_is_of_the_gradients_inside_the_silhouette():
    truth = np.ones((32, 32, 4), np.float32)
    truth[..., :3] = np.random.default_rng(0).random((32, 32, 3))
    pale = 0.5 + 0.3 * (truth[..., :3] - 0.5)
    assert quality.view_figures(pale, truth[..., 3], truth)["sharpness"] == pytest.approx(0.3, abs=1e-4)
    half = truth.copy()
    half[:, 16:, 3] = 0
    elsewhere = np.where(half[..., 3:] > 0, half[..., :3], np.random.default_rng(1).random((32, 32, 3), np.float32))
    sharp = quality.view_figures(elsewhere, half[..., 3], half)["sharpness"]
    assert sharp == pytest.approx(1, abs=0.1), "what is drawn outside does not count"


def test_surface_points_lie_on_the_surface_all_around():
    solids = make_objects([3])
    points = quality.surface_points(solids)
    assert len(points) == 10_000
    import torch

    distance, _ = distance_and_colour(solids, torch.from_numpy(points)[None])
    assert distance.abs().max() < 1e-3
    assert (points.max(0) - points.min(0) > 0.3).all()


class Ball:
    """A backend that holds a ball of radius 0.5, its logit falling by 20 in a scene unit."""

    workers, threads = None, 1

    def field(self, triplane, key=None):
        return self.query

    def query(self, points):
        logit = 20 * (0.5 - np.linalg.norm(points, axis=1))
        return np.full(points.shape, 0.5, np.float32), (20 * np.logaddexp(0, logit)).astype(np.float32)


def test_the_distance_of_concentric_balls_is_the_difference_of_their_radii():
    scene = runtime.Scene(Ball(), np.zeros((3, 1, 128, 128), np.float32), 1 << 26, 20.0, (0, 0, 0))
    rng = np.random.default_rng(0)
    sphere = rng.standard_normal((10_000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    same = quality.surface_figures(scene, (0.5 * sphere).astype(np.float32))
    assert same["fscore"] > 0.999
    assert same["chamfer"] < 0.03
    larger = quality.surface_figures(scene, (0.7 * sphere).astype(np.float32))
    assert larger["fscore"] == 0
    assert larger["chamfer"] == pytest.approx(0.4, abs=0.02)


def test_the_interval_covers_the_mean_and_shrinks_with_more_objects():
    rng = np.random.default_rng(0)
    few = quality.summary([{"x": v} for v in rng.normal(5, 1, 10)])["x"]
    many = quality.summary([{"x": v} for v in rng.normal(5, 1, 1000)])["x"]
    for each in (few, many):
        assert each["low"] < each["mean"] < each["high"]
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 4


def test_held_out_objects_are_none_that_training_draws():
    config = load_config(LONG)
    assert all(source.first_seed + source.objects < VALIDATION_SEED for source in config.source)
    assert VALIDATION_SEED + 1_000_000 < HELD_OUT_SEED


@pytest.mark.parametrize("own", [False, True])
def test_the_command_measures_and_writes_what_it_says(own, tiny_bundle, tmp_path):
    Teacher(8, 16, 32, width=16).save(tmp_path / "teacher.safetensors")
    arguments = ["--bundle", tiny_bundle, "--objects", 2, "--size", 24, "--samples", 8]
    arguments += ["--teacher", tmp_path / "teacher.safetensors"]
    if own:
        for seed in range(2):
            write_transforms(tmp_path / "data" / str(seed), procedural_views(seed, 3, 32))
        arguments += ["--data", tmp_path / "data"]
    arguments += ["--json", tmp_path / "figures.json", "--sheet", tmp_path / "sheet.png"]
    app = quality.typer.Typer()
    app.command()(quality.main)
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    names = {"white picture", "input view", "zero details", "bilinear details", "one-shot regression"}
    assert names <= set(figures["baselines"])
    assert {"diffusion, 1 steps", "diffusion, 50 steps"} <= set(figures["baselines"])
    for row in (figures, *figures["baselines"].values()):
        assert all(np.isfinite(row[key]) for key in ("psnr", "ssim", "iou"))
    assert figures["objects"] == 2
    assert figures["psnr"] == figures["baselines"]["diffusion, 4 steps"]["psnr"], (
        "4 steps are the tiny bundle's default"
    )
    assert ("fscore" in figures["intervals"]["default"]) != own
    assert ("teacher, bilinear details" in figures["baselines"]) != own, (
        "views without orthographic ones have no ceiling"
    )
    assert figures["intervals"]["default"]["patches"]["mean"] > 0
    assert figures["intervals"]["diffusion, 50 steps"]["diversity"]["mean"] >= 0
    assert (tmp_path / "sheet.png").exists()


def test_a_bad_data_set_is_one_sentence(tiny_bundle, tmp_path):
    app = quality.typer.Typer()
    app.command()(quality.main)
    done = CliRunner().invoke(app, ["--bundle", str(tiny_bundle), "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds no object" in done.output


def test_procedural_subjects_are_seen_from_cameras_other_than_the_input():
    (subject,) = quality.procedural_subjects(1, 0, 16, 32)
    assert subject.image.shape == (32, 32, 3)
    assert subject.truth.shape == (8, 16, 16, 4)
    front = Camera.orbit().position
    assert all(np.linalg.norm(camera.position - front) > 0.5 for camera in subject.cameras)

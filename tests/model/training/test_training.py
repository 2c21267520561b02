"""Training runs end to end, resumes to the same weights, and stops on a loss that is no number."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import model.training as package
from export.to_onnx import export_bundle
from model import WaveletTriplaneDiffusion
from model.training.config import ConfigError, StageConfig, TrainConfig, load_config
from model.training.dataset import procedural_views
from model.training.loop import StageLoop, TrainingError, learning_rate
from model.training.objects import make_objects
from model.training.posed import write_transforms
from model.training.solids import first_hits
from model.training.supervision import SolidTruth, ViewTruth
from model.training.train import STAGES, train

TINY = Path(package.__file__).parent / "configs" / "tiny.toml"
COMMAND = [sys.executable, "-m", "model.training.train", "--config", str(TINY), "--device", "cpu", "--out"]
# Math libraries may take fewer threads on a busy machine, and then add in another order.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MKL_DYNAMIC": "FALSE"}
ROOT = Path(package.__file__).parents[2]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run([*COMMAND, str(folder)], check=True, capture_output=True, cwd=ROOT, env=ENVIRONMENT)
    return folder


def test_a_run_goes_from_nothing_to_a_bundle(finished_run, tmp_path):
    model = WaveletTriplaneDiffusion.load(finished_run / "model.safetensors")
    notes = model.notes
    assert notes["trained"] is True
    assert set(notes["speed"]) == set(STAGES)
    assert all(speed["objects_per_second"] > 0 and speed["peak_memory_mb"] > 0 for speed in notes["speed"].values())
    assert (model.detail_std != 1).all(), "the statistics of the fitted details are kept"
    assert (model.coarse_gen.std != 1).all()
    assert notes["silent_units"] == (model.renderer.mlp[2].weight == 0).all(1).sum()
    for stage in STAGES:
        rows = list(csv.DictReader((finished_run / f"{stage}.csv").open()))
        assert all(float(row["loss"]) > 0 for row in rows)
        assert (finished_run / "samples" / f"{stage}.png").exists()
    export_bundle(model, tmp_path / "bundle", "tiny", trained=True)


def test_a_killed_run_resumes_to_the_same_weights(finished_run, tmp_path):
    folder = tmp_path / "killed"
    # Killed twice: in the middle of the second stage, and of the last.
    for wanted in ("coarse.state", "joint.state"):
        process = subprocess.Popen([*COMMAND, str(folder)], stdout=subprocess.DEVNULL, cwd=ROOT, env=ENVIRONMENT)
        deadline = time.monotonic() + 120
        while not (folder / wanted).exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / "model.safetensors").exists()
    subprocess.run([*COMMAND, str(folder)], check=True, capture_output=True, cwd=ROOT, env=ENVIRONMENT)
    expected = WaveletTriplaneDiffusion.load(finished_run / "model.safetensors").state_dict()
    resumed = WaveletTriplaneDiffusion.load(folder / "model.safetensors").state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_folder_belongs_to_one_configuration(finished_run):
    with pytest.raises(ConfigError, match="another configuration"):
        train(replace(load_config(TINY), seed=9), finished_run, torch.device("cpu"))


def test_posed_views_are_trained_on_by_their_rays(tmp_path):
    for seed in range(3):
        write_transforms(tmp_path / "data" / str(seed), procedural_views(seed, 3, 48))
    stage = StageConfig(2, 2, 1e-3, 0, 24, 8)
    settings = {"data": str(tmp_path / "data"), "fit": stage, "coarse": stage, "detail": stage, "joint": stage}
    final = train(replace(load_config(TINY), **settings), tmp_path / "run", torch.device("cpu"))
    assert WaveletTriplaneDiffusion.load(final).notes["training"]["data"] == str(tmp_path / "data")
    bad = replace(load_config(TINY), **settings | {"fit": StageConfig(2, 2, 1e-3)})
    with pytest.raises(ConfigError, match="rays above 0"):
        train(bad, tmp_path / "other", torch.device("cpu"))


@pytest.mark.parametrize("kind", ["solids", "views"])
def test_rays_carry_the_colours_that_their_pixels_have(kind, tmp_path):
    camera_count, rng = 3, np.random.default_rng(0)
    views = procedural_views(5, camera_count, 96)
    truth = ViewTruth([views.rgba], [views.cameras]) if kind == "views" else SolidTruth(make_objects([5]))
    rays = truth.rays(400, rng, torch.Generator().manual_seed(0))
    assert rays.rgba.shape == (1, 400, 4)
    assert 0.2 < rays.rgba[..., 3].mean() < 0.95
    distance, colour = first_hits(make_objects([5]), rays.origin[:, None].expand_as(rays.directions), rays.directions)
    hit = (distance < 9)[..., None]
    expected = torch.cat([colour * hit, hit.float()], -1)
    close = (rays.rgba - expected).abs().amax(-1) < 0.06
    # A pixel is an average over its area: along edges it differs from the ray through its middle.
    assert close.float().mean() > (0.999 if kind == "solids" else 0.85)


def loop_on(losses, tmp_path, parameter, steps=20, **settings):
    config = TrainConfig(warmup=2, save_every=5, **settings)
    return StageLoop("trial", config, StageConfig(steps, 1, 0.1), tmp_path, [parameter], losses)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_names_stage_and_step(tmp_path, bad):
    parameter = torch.nn.Parameter(torch.ones(3))

    def losses(step):
        return {"loss": (parameter * (bad if step == 7 else 1.0)).sum()}

    with pytest.raises(TrainingError, match="Stage trial, step 7"):
        loop_on(losses, tmp_path, parameter).run()
    assert torch.isfinite(parameter).all()


def test_the_loop_minimises_and_hands_over_the_average(tmp_path):
    parameter = torch.nn.Parameter(torch.full((4,), 3.0))
    figures = loop_on(
        lambda _: {"loss": (parameter - 1).square().sum()}, tmp_path, parameter, 200, weight_decay=0.0
    ).run()
    torch.testing.assert_close(parameter.detach(), torch.ones(4), atol=0.2, rtol=0)
    assert figures["objects_per_second"] > 0


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    stage = StageConfig(100, 1, 2.0)
    rates = [learning_rate(step, stage, 10) for step in range(100)]
    assert rates[0] < 0.25
    assert max(rates) == pytest.approx(rates[9], rel=0.05)
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('preset = "huge"', "small, medium, large"),
        ("stepz = 3", "unknown keys"),
        ("[coarse]\nstepz = 3", r"\[coarse\]"),
        ('precision = "float8"', "float32 or bfloat16"),
        ("objects = 0", "objects must be at least 1"),
        ("not toml", "cannot be read"),
    ],
)
def test_bad_configurations_are_refused(text, reason, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_config(path)

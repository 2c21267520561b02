"""Training runs end to end, resumes to the same weights, and stops on a loss that is no number."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import model.training as package
from export.to_onnx import export_bundle
from model import WaveletTriplaneDiffusion
from model.checkpoint import checkpoint_notes
from model.training.config import ConfigError, StageConfig, TrainConfig, load_config
from model.training.loop import StageLoop, TrainingError, learning_rate
from model.training.train import STAGES, train

TINY = Path(package.__file__).parent / "configs" / "tiny.toml"
COMMAND = [sys.executable, "-m", "model.training.train", "--config", str(TINY), "--device", "cpu", "--out"]
ROOT = Path(package.__file__).parents[2]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run([*COMMAND, str(folder)], check=True, capture_output=True, cwd=ROOT)
    return folder


def test_a_run_goes_from_nothing_to_a_bundle(finished_run, tmp_path):
    model = WaveletTriplaneDiffusion.load(finished_run / "model.safetensors")
    notes = checkpoint_notes(finished_run / "model.safetensors")
    assert notes["trained"] is True
    assert set(notes["speed"]) == set(STAGES)
    assert all(speed["objects_per_second"] > 0 and speed["peak_memory_mb"] > 0 for speed in notes["speed"].values())
    assert (model.detail_std != 1).all(), "the statistics of the fitted details are kept"
    assert (model.ll_std != 1).all()
    for stage in STAGES:
        rows = list(csv.DictReader((finished_run / f"{stage}.csv").open()))
        assert all(float(row["loss"]) > 0 for row in rows)
        assert (finished_run / "samples" / f"{stage}.png").exists()
    export_bundle(model, tmp_path / "bundle", "tiny", trained=True)


def test_a_killed_run_resumes_to_the_same_weights(finished_run, tmp_path):
    folder = tmp_path / "killed"
    # Killed twice: in the middle of the second stage, and of the last.
    for wanted in ("coarse.state", "joint.state"):
        process = subprocess.Popen([*COMMAND, str(folder)], stdout=subprocess.DEVNULL, cwd=ROOT)
        deadline = time.monotonic() + 120
        while not (folder / wanted).exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / "model.safetensors").exists()
    subprocess.run([*COMMAND, str(folder)], check=True, capture_output=True, cwd=ROOT)
    expected = WaveletTriplaneDiffusion.load(finished_run / "model.safetensors").state_dict()
    resumed = WaveletTriplaneDiffusion.load(folder / "model.safetensors").state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_folder_belongs_to_one_configuration(finished_run):
    with pytest.raises(ConfigError, match="another configuration"):
        train(replace(load_config(TINY), seed=9), finished_run, torch.device("cpu"))


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

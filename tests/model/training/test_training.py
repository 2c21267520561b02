"""Training runs end to end, resumes to the same weights, and stops on a loss that is no number."""

import contextlib
import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import typer
from typer.testing import CliRunner

import model.training as package
from export.to_onnx import export_bundle
from model import WaveletTriplaneDiffusion
from model.checkpoint import CheckpointError
from model.training import figures, validation
from model.training.config import ConfigError, SourceConfig, StageConfig, TrainConfig, load_config
from model.training.data.posed import DataError, write_transforms
from model.training.dataset import app, procedural_views
from model.training.loop import StageLoop, TrainingError, learning_rate
from model.training.optimizer import weight_matrices
from model.training.stages import _SURFACE_LEVELS, STAGES
from model.training.targets import KeptBands
from model.training.train import TEACHER_FILE, main, train
from runtime.bundle import load_bundle

TINY = Path(package.__file__).parent / "configs" / "tiny.toml"
cli, validation_command = typer.Typer(), typer.Typer()
cli.command()(main)
validation_command.command()(validation.main)
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
    assert (model.detail_std != 1).all(), "the statistics of the teacher's details are kept"
    assert (model.coarse_gen.std != 1).all()
    assert notes["inactive_units"] == (model.renderer.mlp[2].weight == 0).all(1).sum()
    for stage in STAGES:
        rows = list(csv.DictReader((finished_run / f"{stage}.csv").open()))
        assert all(float(row["loss"]) > 0 for row in rows)
        assert (finished_run / "samples" / f"{stage}.png").exists()
    assert notes["surface_logit"] in _SURFACE_LEVELS
    told = notes | {"surface_logit": -1.25}
    export_bundle(model, tmp_path / "bundle", "tiny", trained=True, notes=told)
    assert load_bundle(tmp_path / "bundle").surface_logit == -1.25


def test_a_killed_run_resumes_to_the_same_weights(finished_run, tmp_path):
    folder = tmp_path / "killed"
    # Killed in the middle of each stage.
    for wanted in ("teacher.state", "coarse.state", "detail.state", "joint.state"):
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


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_stage_that_was_stopped_ends_with_the_same_weights_to_the_last_bit(precision, tmp_path):
    def run(folder, *stops):
        folder.mkdir()
        for stop in stops:
            torch.manual_seed(0)
            net = torch.nn.Sequential(torch.nn.Conv2d(16, 32, 3), torch.nn.GroupNorm(8, 32), torch.nn.Conv2d(32, 1, 3))

            def losses(step, net=net, stop=stop):
                if step == stop:
                    raise KeyboardInterrupt
                images = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(step))
                # Scaled for float16 this overflows: that step is left out, and says so nowhere but in what is saved.
                large = 1e34 if precision == "float16" and step == 1 else 1
                return {"loss": large * (net(images) - images.mean()).square().mean()}

            stage, config = StageConfig(8, 1, 1e-2), TrainConfig(save_every=2, precision=precision)
            loop = StageLoop("trial", config, stage, folder, list(net.parameters()), losses, weight_matrices(net))
            with contextlib.suppress(KeyboardInterrupt):
                loop.run()
        assert loop.taken == 8 - (precision == "float16")
        return net.state_dict()

    whole, stopped = run(tmp_path / "whole", 99), run(tmp_path / "stopped", 3, 6, 99)
    assert (tmp_path / "stopped" / "trial.state").exists()
    for name, value in whole.items():
        assert torch.equal(stopped[name], value), name


def test_a_folder_belongs_to_one_configuration(finished_run):
    with pytest.raises(ConfigError, match="another configuration"):
        train(replace(load_config(TINY), seed=9), finished_run, torch.device("cpu"))


def test_how_a_run_is_watched_may_change_and_older_runs_lack_newer_settings(finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    path = folder / "config.json"
    older = json.loads(path.read_text())
    del older["keep_targets"]
    path.write_text(json.dumps(older))
    train(replace(load_config(TINY), figures_every=5.0), folder, torch.device("cpu"))


def test_the_teacher_s_bands_are_computed_once(finished_run, tmp_path):
    bands = next(finished_run.glob("ll_*.bands"))
    assert np.fromfile(bands.with_suffix(".known"), np.uint8).any()
    teacher, computed = torch.nn.Linear(2, 2), []

    def compute(chosen):
        computed.extend(chosen.tolist())
        return torch.from_numpy(chosen.astype(np.float32))[:, None, None].expand(-1, 3, 4) / 3

    chosen = np.array([5, 1, 5])
    for _ in range(2):
        found = KeptBands(tmp_path, teacher, "these", 8, (3, 4)).of(chosen, compute)
        np.testing.assert_allclose(found[:, 0, 0], chosen / 3, rtol=1e-3)
    assert computed == [1, 5]
    other = torch.nn.Linear(2, 2)
    KeptBands(tmp_path, other, "these", 8, (3, 4)).of(chosen, compute)
    assert computed == [1, 5, 1, 5]
    assert len(list(tmp_path.glob("ll_*"))) == 2, "another teacher's bands are gone"
    KeptBands(tmp_path, other, "those", 8, (3, 4)).of(chosen, compute)
    assert computed == [1, 5, 1, 5, 1, 5], "other objects' bands are not theirs"
    next(tmp_path.glob("*.bands")).unlink()
    found = KeptBands(tmp_path, other, "those", 8, (3, 4)).of(chosen, compute)
    np.testing.assert_allclose(found[:, 0, 0], chosen / 3, rtol=1e-3)
    assert computed == [1, 5, 1, 5, 1, 5, 1, 5], "without its file nothing is known"


def test_views_without_depth_are_trained_on_by_their_rays(finished_run, tmp_path):
    for seed in range(3):
        write_transforms(tmp_path / "data" / str(seed), procedural_views(seed, 3, 48))
    stage, nothing = StageConfig(2, 2, 1e-3, 0, 24, 8), StageConfig(0, 2, 1e-3)
    settings = {
        "source": (SourceConfig("folder", path=str(tmp_path / "data")),),
        "init": str(finished_run / "model.safetensors"),
        "teacher": nothing, "coarse": stage, "detail": nothing, "joint": stage,
    }  # fmt: skip
    final = train(replace(load_config(TINY), **settings), tmp_path / "run", torch.device("cpu"))
    notes = WaveletTriplaneDiffusion.load(final).notes
    assert notes["training"]["source"][0]["path"] == str(tmp_path / "data")
    assert set(notes["steps"]) == {"coarse", "joint"}
    bad = replace(load_config(TINY), **settings | {"coarse": StageConfig(2, 2, 1e-3, rays=0)})
    with pytest.raises(ConfigError, match="rays above 0"):
        train(bad, tmp_path / "other", torch.device("cpu"))
    blind = {"teacher": stage, "init": ""}
    with pytest.raises(DataError, match=r"no orthographic\.png, which the teacher needs"):
        train(replace(load_config(TINY), **settings | blind), tmp_path / "blind", torch.device("cpu"))


def test_meshes_are_trained_on_beside_procedural_objects_with_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "_OBJECTS", 2)
    for name, value in (("_SIZE", 16), ("_SAMPLES", 8)):
        monkeypatch.setattr(validation, name, value)
    source = tmp_path / "meshes"
    source.mkdir()
    for index, half in enumerate(((0.5, 0.3, 0.4), (0.2, 0.6, 0.3), (0.4, 0.4, 0.2))):
        trimesh.creation.box(2 * np.array(half)).export(source / f"{index}.glb")
    made = ["from-meshes", str(source), "--out", str(tmp_path / "data"), "--variants", "2", "--views", "3"]
    assert CliRunner().invoke(app, [*made, "--size", "48", "--planes", "32", "--workers", "1"]).exit_code == 0
    tiny = load_config(TINY)
    sources = (SourceConfig("plain", objects=4), SourceConfig("folder", path=str(tmp_path / "data")))
    stages = {name: replace(getattr(tiny, name), steps=2) for name in STAGES}
    config = replace(tiny, source=sources, validation=str(tmp_path / "data"), figures_every=1e-4, **stages)
    final = train(config, tmp_path / "run", torch.device("cpu"))
    assert WaveletTriplaneDiffusion.load(final).notes["trained"]
    rows = list(csv.DictReader((tmp_path / "run" / "figures.csv").open()))
    assert {(row["stage"], row["objects"]) for row in rows} == set(
        itertools.product(STAGES, ("plain", "textured", "real"))
    )
    assert all(5 < float(row["psnr"]) < 40 for row in rows)
    assert (tmp_path / "run" / "figures.png").exists()
    latest = WaveletTriplaneDiffusion.load(tmp_path / "run" / "latest.safetensors")
    assert latest.config.resolution == 16
    images = ["--data", config.validation, "--folder", str(tmp_path / "run" / "pictures"), "--objects", "2"]
    printed = CliRunner().invoke(validation_command, [str(final), *images]).output
    last = {row["objects"]: float(row["psnr"]) for row in rows if (row["stage"], row["planes"]) == ("joint", "model")}
    told = {kind: float(value) for kind, value in re.findall(r"(\w+) ([\d.]+) dB \(2 objects\)", printed)}
    # The checkpoint that is measured has units of the decoder that nothing activates set to 0.
    assert told == pytest.approx(last, abs=0.02)
    assert (latest.coarse_gen.std != 1).all()


def test_what_cannot_give_figures_is_said_at_the_start(tmp_path):
    write_transforms(tmp_path / "few" / "a", procedural_views(0, 2, 32))
    write_transforms(tmp_path / "blind" / "a", procedural_views(0, 4, 32))
    for name, reason in (("few", "too few views"), ("blind", "which the teacher needs"), ("none", "cannot be read")):
        config = replace(load_config(TINY), figures_every=1.0, validation=str(tmp_path / name))
        with pytest.raises(DataError, match=reason):
            train(config, tmp_path / "run", torch.device("cpu"))
    done = CliRunner().invoke(cli, ["--device", "gpu", "--out", str(tmp_path / "x")])
    assert done.exit_code == 1
    assert "give cpu or cuda" in done.output


def test_a_run_goes_on_from_the_weights_and_the_teacher_of_another(finished_run, tmp_path):
    again = replace(
        load_config(TINY),
        init=str(finished_run / "model.safetensors"),
        teacher_init=str(finished_run / TEACHER_FILE),
        teacher=StageConfig(0, 2, 1e-3),
        joint=StageConfig(0, 2, 1e-3),
    )
    train(again, tmp_path / "run", torch.device("cpu"))
    lengthened = replace(again, detail=replace(again.detail, steps=8))
    final = train(lengthened, tmp_path / "run", torch.device("cpu"))
    assert WaveletTriplaneDiffusion.load(final).notes["steps"] == {"coarse": 6, "detail": 8}
    with pytest.raises(ConfigError, match="Only more steps"):
        train(again, tmp_path / "run", torch.device("cpu"))
    before = WaveletTriplaneDiffusion.load(tmp_path / "run" / "detail.safetensors")
    train(replace(lengthened, coarse=replace(again.coarse, steps=8)), tmp_path / "run", torch.device("cpu"))
    after = WaveletTriplaneDiffusion.load(tmp_path / "run" / "detail.safetensors")
    assert after.notes["steps"] == {"coarse": 8, "detail": 8}, "what comes after a longer stage is trained again"
    assert not torch.equal(after.coarse_gen.out[-1].weight, before.coarse_gen.out[-1].weight)
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(replace(again, teacher_init="nowhere"), tmp_path / "other", torch.device("cpu"))


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
    assert rates[-1] == pytest.approx(0.1)
    assert learning_rate(stage.steps, stage, 10) == 0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    longer = [learning_rate(step, StageConfig(200, 1, 2.0), 10) for step in range(80)]
    assert rates[:80] == longer, "a stage that is lengthened goes on as if it had been as long from the beginning"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('preset = "huge"', "small, medium, large"),
        ("stepz = 3", "unknown keys"),
        ("[coarse]\nstepz = 3", r"\[coarse\]"),
        ('precision = "float8"', "float32, bfloat16 or float16"),
        ("[[source]]\nobjects = 0", "objects must be at least 1"),
        ('[[source]]\nkind = "toys"', "plain, textured, folder"),
        ('[[source]]\nkind = "folder"', "has a path"),
        ("[teacher]\nsteps = 0\nbatch = 1\nlr = 0.1", "only with init"),
        ('teacher_init = "x"', "needs init"),
        ("[[source]]\nfirst_seed = 899999999", "are held out"),
        ("[[source]]\nfirst_seed = 799999999", "kept for validation"),
        ("[source]\nobjects = 3", "array of tables"),
        ("teacher = 5", "is a stage, a table"),
        ("seed = -1", "seed must be at least 0"),
        ("resolution = 20", "multiple of 16"),
        ("figures_every = -1", "0 or more"),
        ("[coarse]\nsteps = 3\nbatch = 8.0\nlr = 0.1", "batch must be at least 1 and whole"),
        ("not toml", "cannot be read"),
    ],
)
def test_bad_configurations_are_refused(text, reason, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_config(path)

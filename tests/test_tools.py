"""Every tool ends in one sentence where a user can be wrong: training, data, export, benchmarks."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from export.to_onnx import main as export_main
from model.training.train import main as train_main

ROOT = Path(__file__).parents[1]
TRAIN, EXPORT, DATA, QUALITY = (
    ["-m", "model.training.train", "--out", "{tmp}/run"],
    ["export/to_onnx.py", "--out", "{tmp}/bundle"],
    ["-m", "model.training.dataset"],
    ["benchmarks/quality.py"],
)
CASES = {
    "no config": ([*TRAIN, "--config", "{tmp}/none.toml"], "No such file"),
    "no TOML": ([*TRAIN, "--config", "{tmp}/html"], "cannot be read as a configuration"),
    "wrong type": ([*TRAIN, "--config", "{tmp}/type.toml"], "steps must be"),
    "not a table": ([*TRAIN, "--config", "{tmp}/table.toml"], "teacher is a stage"),
    "negative": ([*TRAIN, "--config", "{tmp}/negative.toml"], "steps must be at least 0"),
    "unknown device": ([*TRAIN, "--device", "tpu"], "--device tpu"),
    "missing data": ([*TRAIN, "--config", "{tmp}/data.toml"], "cannot be read as a folder"),
    "pointer": ([*EXPORT, "--checkpoint", "{tmp}/lfs"], "git lfs pull"),
    "page": ([*EXPORT, "--checkpoint", "{tmp}/html"], "web page"),
    "no checkpoint": ([*EXPORT, "--checkpoint", "{tmp}/none"], "cannot be read as a checkpoint"),
    "a folder": ([*EXPORT, "--checkpoint", "{tmp}"], "cannot be read as a checkpoint"),
    "no meshes": ([*DATA, "from-meshes", "{tmp}/nowhere", "--out", "{tmp}/data"], "nowhere"),
    "no data": ([*QUALITY, "--data", "{tmp}/nowhere"], "nowhere"),
    "no bundle": ([*QUALITY, "--bundle", "{tmp}/nowhere"], "no bundle folder"),
}


# One of each tool is run as users run it.
IN_A_PROCESS = ("no config", "pointer")


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_sentence(case, tmp_path, capsys):
    (tmp_path / "html").write_text("<!doctype html><html></html>")
    (tmp_path / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    (tmp_path / "type.toml").write_text('[teacher]\nsteps = "many"\nbatch = 1\nlr = 1e-3\n')
    (tmp_path / "table.toml").write_text("teacher = 3\n")
    (tmp_path / "negative.toml").write_text("[coarse]\nsteps = -1\nbatch = 1\nlr = 1e-3\n")
    (tmp_path / "data.toml").write_text('[[source]]\nkind = "folder"\npath = "nowhere"\n')
    arguments, said = CASES[case]
    arguments = [a.format(tmp=tmp_path) for a in arguments]
    mains = {"model.training.train": train_main, "export/to_onnx.py": export_main}
    name = arguments[1] if arguments[0] == "-m" else arguments[0]
    if name in mains and case not in IN_A_PROCESS:
        # In this process: PyTorch takes seconds to import.
        options = arguments[2:] if arguments[0] == "-m" else arguments[1:]
        with pytest.raises(SystemExit) as caught:
            typer.main.get_command(_app(mains[name]))(options, standalone_mode=False)
        status, errors = caught.value.code, capsys.readouterr().err
    else:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
        status, errors = done.returncode, done.stderr
    assert status == 1, errors
    assert "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last


def _app(main):
    app = typer.Typer()
    app.command()(main)
    return app

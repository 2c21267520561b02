"""Every tool ends in one sentence where a user can be wrong: training, data, export, benchmarks."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_sentence(case, tmp_path):
    (tmp_path / "html").write_text("<!doctype html><html></html>")
    (tmp_path / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    (tmp_path / "type.toml").write_text('[teacher]\nsteps = "many"\nbatch = 1\nlr = 1e-3\n')
    (tmp_path / "table.toml").write_text("teacher = 3\n")
    (tmp_path / "negative.toml").write_text("[coarse]\nsteps = -1\nbatch = 1\nlr = 1e-3\n")
    (tmp_path / "data.toml").write_text('[[source]]\nkind = "folder"\npath = "nowhere"\n')
    arguments, said = CASES[case]
    done = subprocess.run(
        [sys.executable, *(a.format(tmp=tmp_path) for a in arguments)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last

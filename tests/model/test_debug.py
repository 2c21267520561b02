"""Checks for people who train: they pass on a sound model, and name what is wrong with a broken one."""

import subprocess
import sys

import pytest
import torch

from model import WaveletTriplaneDiffusion
from model.debug import CHECKS, DebugError, gradients, shapes
from tests.conftest import TINY


@pytest.mark.parametrize("name", CHECKS)
def test_a_sound_model_passes(name):
    torch.manual_seed(0)
    rows = CHECKS[name](WaveletTriplaneDiffusion(**TINY))
    assert rows
    assert all(label and value for label, value in rows)


def test_what_is_not_finite_and_what_gets_no_gradient_are_named():
    model = WaveletTriplaneDiffusion(**TINY)
    model.context.requires_grad_(False)
    gradients(model)  # What is frozen on purpose is no mistake.
    model.coarse_gen.forward_was = model.coarse_gen.features
    model.coarse_gen.features = lambda images: model.coarse_gen.forward_was(images).detach()
    with pytest.raises(DebugError, match="No gradient reaches coarse_gen"):
        gradients(model)
    broken = WaveletTriplaneDiffusion(**TINY)
    with torch.no_grad():
        broken.detail_mean.fill_(float("nan"))
    with pytest.raises(DebugError, match=r"not finite.*learning rate"):
        shapes(broken)


def test_the_command_prints_tables_and_knows_its_checks(tmp_path):
    WaveletTriplaneDiffusion(**TINY).save(tmp_path / "tiny.safetensors")
    command = [sys.executable, "-m", "model.debug", "--checkpoint", str(tmp_path / "tiny.safetensors")]
    done = subprocess.run([*command, "shapes", "wavelet"], capture_output=True, text=True, check=True)
    assert "triplane_highres  (1, 3, 8, 32, 32)" in done.stdout
    done = subprocess.run([*command, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "There are shapes" in done.stderr

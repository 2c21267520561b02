"""The teacher: what planes tell one another, and that it learns an object it sees."""

import numpy as np
import pytest
import torch

from model.checkpoint import CheckpointError
from model.training.config import SourceConfig, StageConfig, TrainConfig
from model.training.data.pools import TEACHER_CHANNELS, make_pool
from model.training.stages import Stages
from model.training.teacher import Exchange, Teacher
from model.wavelet import WaveletTransform
from runtime.geometry.triplane import PLANE_AXES


@pytest.mark.parametrize("plane", range(3))
def test_planes_hear_of_one_another_along_the_axes_that_they_share(plane):
    side = 8
    exchange = Exchange(1)
    with torch.no_grad():
        exchange.join.weight.fill_(1.0)
        exchange.join.bias.zero_()
    features = torch.zeros(3, 1, side, side)
    features[plane, 0, 2, 5] = 1.0
    changed = (exchange(features) - features)[:, 0].abs() > 0
    column, row, sign = PLANE_AXES[plane]
    # Where along each world axis the lit texel is.
    place = {column: 5, row: 2 if sign > 0 else side - 1 - 2}
    for other, (across, down, way) in enumerate(PLANE_AXES):
        expected = torch.zeros(side, side, dtype=torch.bool)
        if other != plane:
            if across in place:
                expected[:, place[across]] = True
            if down in place:
                expected[place[down] if way > 0 else side - 1 - place[down]] = True
        assert torch.equal(changed[other], expected)


def test_a_teacher_is_kept_and_read_again(tmp_path):
    torch.manual_seed(0)
    teacher = Teacher(8, 16, hidden_dim=32, width=16)
    views = torch.randn(2, 3, TEACHER_CHANNELS, 32, 32)
    ll, details = teacher(views)
    assert ll.shape == (2, 3, 8, 16, 16)
    assert details.shape == (2, 3, 24, 16, 16)
    teacher.save(tmp_path / "teacher.safetensors")
    again = Teacher.load(tmp_path / "teacher.safetensors")
    torch.testing.assert_close(again(views)[0], ll, atol=0.02, rtol=0.02)
    (tmp_path / "bad").write_bytes(b"12345678 no teacher")
    for path, reason in ((tmp_path / "bad", "cannot be read"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(CheckpointError, match=reason):
            Teacher.load(path)


def test_a_teacher_learns_the_objects_that_it_sees(tmp_path, tiny_model):
    source = (SourceConfig("plain", objects=2, first_seed=3),)
    pool = make_pool(source, tmp_path, 64, 32)
    stage = StageConfig(60, 2, 1e-3, 1024, 0)
    config = TrainConfig(source=source, precision="float32", teacher=stage)
    torch.manual_seed(0)
    teacher = Teacher(8, 16, hidden_dim=32, width=16)
    stages = Stages(config, tiny_model, teacher, pool)
    optimizer = torch.optim.Adam(stages.parameters("teacher"), lr=3e-3)
    first = None
    for step in range(60):
        losses = stages.teacher(step)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        first = first if first is not None else losses["points"].item()
    assert losses["points"].item() < 0.6 * first
    assert losses["iou"].item() > 0.5


def test_statistics_standardise_the_bands_that_the_teacher_gives(tmp_path, tiny_model):
    source = (SourceConfig("plain", objects=6), SourceConfig("textured", objects=6))
    pool = make_pool(source, tmp_path, 64, 32)
    torch.manual_seed(0)
    stages = Stages(TrainConfig(source=source, precision="float32"), tiny_model, Teacher(8, 16, 32, width=16), pool)
    kept = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    try:
        stages.learn_from_teacher()
        ll, details = stages.targets(np.arange(12))
        standard = (ll - tiny_model.coarse_gen.mean[:, :, None, None]) / tiny_model.coarse_gen.std[:, :, None, None]
        assert standard.mean((0, 3, 4)).abs().max() < 0.15
        assert (standard.std((0, 3, 4)) - 1).abs().max() < 0.15
        back = WaveletTransform().dwt2d(tiny_model.reconstruct_planes(ll, details).flatten(0, 1))
        torch.testing.assert_close(torch.cat(back[1:], 1).unflatten(0, (-1, 3)), details, atol=1e-4, rtol=1e-4)
    finally:
        tiny_model.load_state_dict(kept)

"""Fitting planes to one object: the least that a decoder, a marcher and a supervision must be able to do."""

import numpy as np
import torch

from model.renderer import TriplaneRenderer
from model.training.config import StageConfig
from model.training.dataset import procedural_views
from model.training.fitting import fit_triplanes
from model.training.supervision import ViewTruth


def test_one_object_is_learnt_from_its_views_to_30_decibels():
    torch.manual_seed(0)
    views = procedural_views(4, 20, 40)
    truth = ViewTruth([views.rgba], [views.cameras])
    renderer = TriplaneRenderer(8, 32, density_bias=-3.0)
    start = 0.1 * torch.randn(1, 3, 8, 64, 64)
    stage = StageConfig(steps=2000, batch=1, lr=0.03, points=0, rays=300, samples=48)
    planes = fit_triplanes(start, truth, renderer, stage, 0, smoothness=0.0, train_renderer=True)
    errors = []
    for rgba, camera in zip(views.rgba, views.cameras, strict=True):
        target = rgba[..., :3] / 255 * (rgba[..., 3:] / 255) + 1 - rgba[..., 3:] / 255
        with torch.no_grad():
            drawn = renderer.render_volume(planes, 96, 40, camera)[0].permute(1, 2, 0).numpy()
        errors.append(np.square(drawn - target).mean())
    assert -10 * np.log10(np.mean(errors)) > 30
    assert all(parameter.requires_grad for parameter in renderer.parameters())


def test_a_frozen_decoder_stays_as_it_was():
    torch.manual_seed(0)
    views = procedural_views(4, 3, 16)
    renderer = TriplaneRenderer(4, 16)
    before = [parameter.detach().clone() for parameter in renderer.parameters()]
    stage = StageConfig(steps=3, batch=1, lr=0.1, points=0, rays=32, samples=8)
    start = torch.zeros(1, 3, 4, 8, 8)
    planes = fit_triplanes(start, ViewTruth([views.rgba], [views.cameras]), renderer, stage, 0, smoothness=0.0)
    assert not torch.equal(planes, start)
    for parameter, kept in zip(renderer.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), kept, rtol=0, atol=0)
        assert parameter.requires_grad

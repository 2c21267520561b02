"""What the exporter tells the occupancy grid of the decoder, against departures measured independently."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from export.sensitivity import decoder_sensitivity, density_sensitivity
from runtime.rendering.departures import unforeseen_changes


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.fixture(scope="module")
def planes(tiny_model, images):
    with torch.no_grad():
        ll, condition = tiny_model.predict_ll(images)
        return tiny_model.reconstruct_planes(ll, tiny_model.sample_details(condition, 1))


def departures_and_bounds(model, planes, sensitivity, points):
    """The logit's distance from interpolation between the cells' middles at points (N, 3), and what is allowed."""
    side = planes.shape[-1] // 2
    axis = (np.arange(side) + 0.5) * 2 / side - 1
    middles = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)

    def logits(where):
        with torch.no_grad():
            return model.renderer.logits(planes, torch.from_numpy(where).float()[None])[1][0, :, 0].numpy()

    cube, places = logits(middles).reshape((side,) * 3), (points + 1) / 2 * side
    between = map_coordinates(cube, places.T - 0.5, order=1, mode="nearest")
    _, allowed = unforeseen_changes(planes[0].numpy(), sensitivity)
    cells = places.astype(int).clip(0, side - 1)
    return np.abs(logits(points) - between), allowed.reshape((side,) * 3)[tuple(cells.T)]


def test_nearly_all_points_of_another_object_depart_by_no_more_than_is_foreseen(tiny_model, images, planes):
    told = density_sensitivity(tiny_model, images[:2])
    points = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
    departure, allowed = departures_and_bounds(tiny_model, planes[2:], told, points)
    assert (departure <= allowed).mean() > 0.995
    # What is allowed is of the size of what happens: a bound that is far too wide leaves nothing out.
    assert np.quantile(departure / allowed, 0.999) > 0.3


def test_the_measured_sensitivity_is_below_the_steepest_gradient(tiny_model, images, planes):
    told, steepest = density_sensitivity(tiny_model, images), decoder_sensitivity(tiny_model.renderer, planes)
    assert all(0 < a <= b for a, b in zip(told, steepest, strict=True))
    ratios = np.divide(told, steepest)
    assert ratios[0] < 0.95, "a share of 1 would have measured nothing"
    np.testing.assert_allclose(ratios, ratios[0])

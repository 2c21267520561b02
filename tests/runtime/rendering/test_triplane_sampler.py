"""Reading a triplane on a CPU, against SciPy's interpolation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from runtime.geometry.triplane import PLANE_AXES
from runtime.rendering.triplane_sampler import PlaneSampler


def by_scipy(triplane, points):
    side, found = triplane.shape[-1], []
    for plane, (column, row, sign) in zip(triplane, PLANE_AXES, strict=True):
        down, across = ((sign * points[:, row] + 1) * side - 1) / 2, ((points[:, column] + 1) * side - 1) / 2
        found += [map_coordinates(channel.astype(float), [down, across], order=1, mode="nearest") for channel in plane]
    return np.stack(found, axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 60), st.integers(0, 1000))
def test_points_in_the_cube_and_beyond_are_read_as_scipy_does(channels, side, count, seed):
    rng = np.random.default_rng(seed)
    triplane = rng.standard_normal((3, channels, side, side)).astype(np.float32)
    points = rng.uniform(-1.5, 1.5, (count, 3)).astype(np.float32)
    np.testing.assert_allclose(PlaneSampler(triplane).at(points), by_scipy(triplane, points), atol=1e-5)


@pytest.mark.parametrize("corner", [-1.0, 1.0])
def test_corners_of_the_cube_are_the_outermost_texels(corner):
    triplane = np.random.default_rng(0).standard_normal((3, 4, 6, 6)).astype(np.float32)
    found = PlaneSampler(triplane).at(np.full((1, 3), corner, np.float32))[0]
    end = {-1: 0, 1: -1}
    expected = [triplane[p, :, end[int(corner * sign)], end[int(corner)]] for p, (_, _, sign) in enumerate(PLANE_AXES)]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-6)


def test_a_lattice_is_read_as_its_points_are():
    rng = np.random.default_rng(1)
    sampler = PlaneSampler(rng.standard_normal((3, 5, 12, 12)).astype(np.float32))
    axis, index = np.linspace(-1, 1, 17, dtype=np.float32), rng.integers(0, 17, (3, 200))
    np.testing.assert_allclose(sampler.lattice(axis)(list(index)), sampler.at(axis[index].T), atol=1e-6)


def test_a_large_plane_is_read_to_its_last_texel():
    triplane = np.zeros((3, 1, 1024, 1024), np.float32)
    triplane[2, 0, 0, -1] = triplane[1, 0, -1, -1] = 1
    # Plane 1 ends at x = z = 1, plane 2 at z = 1, y = 1 (its rows run against y).
    assert PlaneSampler(triplane).at(np.ones((1, 3), np.float32)).tolist() == [[0, 1, 1]]

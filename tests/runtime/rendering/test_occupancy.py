"""The look at a density field that drawing goes by: what it says of each part of each cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates, maximum_filter

from runtime import Camera
from runtime.geometry.rays import camera_rays
from runtime.rendering.marching import midpoints, row_costs
from runtime.rendering.occupancy import EMPTY, SOLID, OccupancyGrid, _closer, _per_octant, to_logit
from runtime.rendering.parallel import WorkerPool

SCALE, SIDE = 20.0, 128
PLANES = np.zeros((3, 1, SIDE, SIDE), np.float32)


def between_middles(cube):
    """Values at the middles of octants, by SciPy, of those in the middles of cells."""
    places = (np.arange(2 * len(cube)) + 0.5) / 2 - 0.5
    return map_coordinates(cube.astype(float), np.meshgrid(*[places] * 3, indexing="ij"), order=1, mode="nearest")


def ball(points):
    """Density of a ball in a corner, whose logit falls by 25 in a scene unit; its colour is where it is."""
    logit = 25 * (0.4 - np.linalg.norm(points - 0.4, axis=1))
    return (points / 2 + 0.5).astype(np.float32), (SCALE * np.logaddexp(0, logit)).astype(np.float32)


@pytest.fixture(scope="module")
def grid():
    return OccupancyGrid.of(ball, PLANES, SCALE, (0, 0, 0), WorkerPool(1 << 14))


def part_middles(resolution):
    axis = (np.arange(2 * resolution) + 0.5) / resolution - 1
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(0, 1000))
def test_a_part_is_told_by_the_cells_whose_middles_are_around_it(side, seed):
    rng = np.random.default_rng(seed)
    some, values = rng.random((side,) * 3) < 0.2, rng.integers(-511, 512, (side,) * 3)
    np.testing.assert_array_equal(_per_octant(some.reshape(-1), np.logical_or), between_middles(some).reshape(-1) > 0)
    for dtype in (np.float32, np.int16):
        found = _per_octant(values.astype(dtype).reshape(-1), _closer)
        assert found.dtype == dtype
        np.testing.assert_allclose(found / 64, between_middles(values).reshape(-1), atol=1e-3)


def test_what_is_dense_is_asked_for_and_haze_has_its_density(grid):
    points = part_middles(grid.resolution)
    density = ball(points)[1]
    assert (grid.octants[density > 0.25] == SOLID).all()
    assert (density[grid.octants == EMPTY] < 1e-3).all()
    # Beyond the outermost middles there is nothing to interpolate with.
    between_cells = np.abs(points).max(axis=1) < 1 - 1 / grid.resolution
    low_density = (grid.octants != EMPTY) & (grid.octants != SOLID) & between_cells
    assert low_density.sum() > 1000
    found, expected = grid.densities[grid.octants[low_density]], density[low_density]
    np.testing.assert_allclose(found, expected, rtol=0.33, atol=5e-3)
    assert np.median(np.abs(found / expected - 1)) < 0.1
    assert (grid.octants == SOLID).mean() < 1.7 * (density > 0.2).mean()


def test_a_finer_look_leaves_solid_what_has_something_dense_beside_it(grid):
    fine, side = grid.refined(ball, WorkerPool(1 << 14)), 2 * grid.resolution
    solid, coarse = (g.octants.reshape((side,) * 3) == SOLID for g in (fine, grid))
    limit = grid.densities[SOLID - 1]
    dense = (ball(part_middles(grid.resolution))[1] > limit).reshape(solid.shape)
    np.testing.assert_array_equal(solid, coarse & maximum_filter(dense & coarse, 3))
    assert solid.sum() < coarse.sum()
    np.testing.assert_array_equal(fine.octants[grid.octants != SOLID], grid.octants[grid.octants != SOLID])
    low_density = coarse & ~solid
    found, expected = (
        fine.densities[fine.octants.reshape(low_density.shape)[low_density]],
        ball(part_middles(side // 2))[1],
    )
    np.testing.assert_allclose(found, expected.reshape(low_density.shape)[low_density], rtol=0.03, atol=1e-3)


def test_levels_of_haze_are_even_steps_of_the_logit(grid):
    assert grid.densities[EMPTY] == grid.densities[SOLID] == 0
    steps = np.diff(to_logit(grid.densities[1:SOLID], SCALE))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.01)


def test_everything_within_the_empty_distance_is_empty(grid):
    side = grid.resolution
    occupied = (grid.octants != EMPTY).reshape(side, 2, side, 2, side, 2).any((1, 3, 5))
    empty_distance = grid.empty_distance.reshape((side,) * 3)
    assert {0, 1, 2, 5, 8} <= set(empty_distance.ravel().tolist())
    for cell in np.random.default_rng(0).integers(0, side, (300, 3)):
        reach = int(empty_distance[tuple(cell)])
        around = tuple(slice(max(0, i - reach + 1), i + reach) for i in cell)
        wider = tuple(slice(max(0, i - reach), i + reach + 1) for i in cell)
        assert not occupied[around].any()
        assert reach == 8 or occupied[wider].any()


@pytest.mark.parametrize("camera", [Camera.orbit(35, -20), Camera(np.eye(4), 90)], ids=["outside", "inside"])
def test_samples_find_the_part_and_the_cell_that_they_are_in(grid, camera):
    rays = camera_rays(camera, 24, 24)
    rays = rays.take(np.flatnonzero(rays.hits))
    distances = midpoints(rays, 50)
    octants, cells = (at(rays.origin, rays.directions.T, distances) for at in (grid.octants_at, grid.cells_at))
    points = rays.origin + rays.directions * distances[..., None].astype(float)
    places = (points + 1) * grid.resolution
    axes = np.moveaxis(np.clip(np.floor(places), 0, 2 * grid.resolution - 1), -1, 0).astype(int)
    expected = np.ravel_multi_index(tuple(axes), (2 * grid.resolution,) * 3)
    # Rounding decides what lies on a border.
    clear = (np.abs(places - np.round(places)) > 1e-4).all(axis=-1)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(octants[clear], expected[clear])
    # The ball's colour is where it is asked: in the middle of the cell.
    middles = (np.stack(np.unravel_index(cells[clear], (grid.resolution,) * 3), axis=-1) + 0.5) * 2 / grid.resolution
    found = grid.colors_at(octants[clear])
    looked_at = grid.logit[cells[clear]] > to_logit(0.3, SCALE)
    np.testing.assert_allclose(found[looked_at], middles[looked_at] / 2, atol=1e-5)


def test_the_effort_of_rows_is_where_there_is_something_to_draw():
    """A low slab, seen from the side at its own height and from above it, in pictures of any shape."""

    def slab(points):
        inside = (np.abs(points[:, 1] + 0.6) < 0.15) & (np.abs(points[:, [0, 2]]).max(axis=1) < 0.7)
        return np.full_like(points, 0.5), np.where(inside, 50, 0).astype(np.float32)

    grid = OccupancyGrid.of(slab, PLANES, SCALE, (0, 0, 0), WorkerPool(1 << 14))
    for height, width, samples in ((128, 128, 64), (100, 30, 17), (20, 300, 300), (7, 1, 1), (1, 500, 4096)):
        found = row_costs(grid, Camera.orbit(20, 0), height, width, samples)
        assert found.shape == (16,)
        assert (found > 0).all()
        # Few samples a ray are few blocks, which all meet something.
        if samples >= 64:
            assert found[:8].max() < found[10:13].min()

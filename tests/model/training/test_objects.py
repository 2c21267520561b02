"""Procedural objects: exact geometry against naive searches, framing, seeds."""

import numpy as np
import pytest
import torch

from model.training.data.drawing import over_white, render_views
from model.training.procedural.objects import ALL_FAMILIES, make_object, make_objects
from model.training.procedural.packing import Solid, pack
from model.training.procedural.patterns import NAMES, amount
from model.training.procedural.solids import BOX, ELLIPSOID, ROUND, distance_and_colour, first_hits
from runtime import Camera
from runtime.geometry.cameras import FOREGROUND_RATIO

GREY = np.full(3, 0.5)


def solid(kind, centre=(0, 0, 0), half=(0.5, 0.4, 0.3), taper=(1, 0, 1, 0), colour=GREY, **rest):
    return Solid(
        kind, np.array(centre, float), np.array(half, float), np.array(colour, float), np.eye(3), taper, **rest
    )


@pytest.mark.parametrize(
    ("shape", "inside", "outside"),
    [
        (solid(ELLIPSOID), [(0.49, 0, 0), (0, 0, -0.29)], [(0.51, 0, 0), (0.4, 0.3, 0.2)]),
        (solid(BOX), [(0.49, 0.39, 0.29), (-0.49, -0.39, -0.29)], [(0.51, 0, 0), (0, 0.41, 0)]),
        (solid(ROUND), [(0.49, 0.39, 0), (0.3, 0, 0.2)], [(0.4, 0, 0.25), (0, 0.41, 0)]),
        (solid(ROUND, taper=(0.5, -0.5, 1, 0)), [(0.49, -0.39, 0), (0, 0.3, 0)], [(0.3, 0.3, 0)]),
        (solid(BOX, taper=(0.5, -0.5, 1, 0)), [(0.47, -0.39, 0.29), (0, 0.3, 0.29)], [(0.3, 0.3, 0)]),
    ],
)
def test_points_are_in_or_out_as_the_formula_says(shape, inside, outside):
    distance, _ = distance_and_colour(pack([[shape]]), torch.tensor([[*inside, *outside]], dtype=torch.float32))
    assert (distance[0, : len(inside)] < 0).all()
    assert (distance[0, len(inside) :] > 0).all()


def test_a_carved_solid_is_hollow_and_the_carving_adds_nothing():
    cup = [solid(ROUND, half=(0.5, 0.5, 0.5)), solid(ROUND, (0, 0.2, 0), (0.4, 0.5, 0.4), carves=True)]
    points = torch.tensor([[[0, 0.3, 0], [0.45, 0.3, 0], [0, -0.4, 0], [0, 0.65, 0]]], dtype=torch.float32)
    assert (distance_and_colour(pack([cup]), points)[0][0] < 0).tolist() == [False, True, True, False]
    down = torch.tensor([[[0.0, -1, 0]]])
    distance, _ = first_hits(pack([cup]), torch.tensor([[[0.0, 2, 0]]]), down)
    assert distance.item() == pytest.approx(2.3, abs=1e-4)


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
def test_first_hits_are_where_a_naive_walk_enters_the_object(family):
    solids = make_objects([3, 4], family, textured=True)
    rng = np.random.default_rng(0)
    origins = rng.standard_normal((2, 120, 3))
    origins = 2.5 * origins / np.linalg.norm(origins, axis=-1, keepdims=True)
    directions = rng.uniform(-0.5, 0.5, (2, 120, 3)) - origins
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    origins, directions = torch.tensor(origins).float(), torch.tensor(directions).float()
    distance, _ = first_hits(solids, origins, directions)
    walk = torch.arange(1.0, 4.2, 0.002)
    points = origins[:, :, None] + walk[:, None] * directions[:, :, None]
    inside = distance_and_colour(solids, points.reshape(2, -1, 3))[0].reshape(2, 120, -1) < 0
    entered = inside.any(-1)
    first = walk[inside.float().argmax(-1)]
    # A walk steps over grazed corners; where it enters, the exact hit is there or before.
    assert ((distance < 5) >= entered).all()
    late = (first - distance)[entered]
    assert (late > -1e-3).all()
    assert (late < 3e-3).float().mean() > 0.97


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
def test_objects_are_framed_and_inside_the_unit_sphere(family):
    seeds = list(range(6))
    solids = make_objects(seeds, family)
    rgba = render_views(solids, [Camera.orbit()], 128)[:, 0]
    for alpha in rgba[..., 3]:
        rows, columns = (np.flatnonzero((alpha > 0.05).any(axis)) for axis in (1, 0))
        longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        assert longest == pytest.approx(128 * FOREGROUND_RATIO, abs=2.5)
        assert abs(rows[0] + rows[-1] + 1 - 128) <= 3
        assert abs(columns[0] + columns[-1] + 1 - 128) <= 3
    shell = torch.nn.functional.normalize(torch.randn(6, 4000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert (distance_and_colour(solids, shell)[0] > 0).all()


def test_objects_fill_a_fair_share_of_the_picture():
    alpha = render_views(make_objects(list(range(40))), [Camera.orbit()], 48)[:, 0, ..., 3]
    assert 0.15 <= alpha.mean() <= 0.40


def test_casting_leaves_pytorch_its_threads():
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            distance_and_colour(make_objects([1]), torch.zeros(1, 10, 3))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_seed_is_an_object_and_another_seed_another():
    first, again, other = (pack([make_object(seed)]) for seed in (11, 11, 12))
    assert torch.equal(first.to_local, again.to_local)
    assert torch.equal(first.colour, again.colour)
    assert first.to_local.shape != other.to_local.shape or not torch.equal(first.to_local, other.to_local)


def test_an_asymmetric_object_is_drawn_on_the_right_side():
    red, blue = (1.0, 0, 0), (0, 0, 1.0)
    pair = [
        [solid(BOX, (0.5, 0, 0), (0.2, 0.2, 0.2), colour=red), solid(BOX, (0, 0.6, 0), (0.1, 0.1, 0.1), colour=blue)]
    ]
    picture = over_white(render_views(pack(pair), [Camera.orbit(0, 0), Camera.orbit(180, 0)], 64))[0]
    for view, on_the_right in ((0, True), (1, False)):
        reddish = (picture[view, ..., 0] - picture[view, ..., 2]) > 0.2
        columns = np.flatnonzero(reddish.any(0))
        assert (columns.mean() > 32) == on_the_right
        bluish = (picture[view, ..., 2] - picture[view, ..., 0]) > 0.2
        assert np.flatnonzero(bluish.any(1)).mean() < 20


def test_colour_at_a_surface_point_is_what_the_camera_sees():
    solids = make_objects([1, 2, 3])
    camera = Camera.orbit(30)
    origin = torch.tensor(camera.position).float().expand(3, 200, 3)
    aim = torch.rand(3, 200, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    directions = torch.nn.functional.normalize(aim - origin, dim=-1)
    distance, seen = first_hits(solids, origin, directions)
    _, there = distance_and_colour(solids, origin + distance[..., None].clamp(max=9) * directions)
    hit = distance < 9
    assert hit.any()
    agree = (seen - there).abs().amax(-1)[hit] < 0.02
    # Where two solids touch, a point belongs to either.
    assert agree.float().mean() > 0.95


def test_the_objects_that_results_were_reported_on_are_still_the_same():
    solids = make_objects(list(range(900_000_000, 900_000_020)))
    assert solids.kind.shape == (20, 9)
    assert solids.to_local.abs().sum().item() == pytest.approx(6476.4709, rel=1e-6)
    assert solids.colour.sum().item() == pytest.approx(330.2129, rel=1e-6)


def test_textured_objects_are_of_every_family_and_dressed():
    plain, textured = (make_objects(list(range(60)), textured=kind) for kind in (False, True))
    assert set(plain.pattern.unique().tolist()) <= {0, 1}
    assert len(textured.pattern.unique()) >= len(NAMES) - 1
    assert (textured.colour >= 0).all()
    assert (textured.colour <= 1).all()


@pytest.mark.parametrize("pattern", range(1, len(NAMES)))
def test_a_pattern_shows_both_colours_about_as_its_share_says(pattern):
    rng = np.random.default_rng(pattern)
    share, period = 0.3, 2.0 if NAMES[pattern] == "bands" else 0.2
    places = rng.uniform(-1, 1, (4000, 2))
    edges = rng.uniform(0, 0.4, 4000)
    shown = np.array(
        [amount(pattern, u, v, v, e, period, 0.7, share, 3.3) for (u, v), e in zip(places, edges, strict=True)]
    )
    assert shown.min() < 0.02
    assert 0.3 < shown.max() <= 1
    if NAMES[pattern] in ("stripes", "dots"):
        assert shown.mean() == pytest.approx(share, abs=0.04)
    if NAMES[pattern] in ("bands", "checks"):
        assert shown.mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("pattern", ["stripes", "checks", "dots", "bricks", "planks", "panels", "letters"])
def test_a_pattern_repeats_after_its_period(pattern):
    index, period = NAMES.index(pattern), 0.25
    at = [amount(index, 0.1 * k, 0.07 * k, 0.0, 9.0, period, 0.0, 0.4, 0.0) for k in range(8)]
    if pattern in ("stripes", "dots"):
        shifted = [amount(index, 0.1 * k + 4 * period, 0.07 * k, 0.0, 9.0, period, 0.0, 0.4, 0.0) for k in range(1, 5)]
        assert at[1:5] == shifted
    doubled = [amount(index, 0.2 * k, 0.14 * k, 0.0, 9.0, 2 * period, 0.0, 0.4, 0.0) for k in range(8)]
    np.testing.assert_allclose(at, doubled, atol=1e-9)

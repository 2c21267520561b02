"""What training compares with: labels of points and colours of rays against exact geometry."""

import numpy as np
import pytest
import torch

from model.training.data.drawing import SolidCaster, draw_view, to_bytes
from model.training.data.framing import cameras_around, random_camera
from model.training.data.posed import PosedViews, find_views, write_transforms
from model.training.data.solid_truth import SolidTruth
from model.training.data.view_truth import ViewTruth
from model.training.dataset import procedural_views
from model.training.procedural.objects import make_objects
from model.training.procedural.solids import distance_and_colour, first_hits
from model.training.supervision import (
    _ALPHA_WEIGHT,
    _RAY_WEIGHT,
    JoinedTruth,
    SupervisedRays,
    importance,
    point_loss,
    ray_loss,
)
from runtime import Camera


@pytest.fixture(scope="module")
def solids():
    return make_objects([5])


@pytest.fixture(scope="module")
def seen(solids, tmp_path_factory):
    """The object as posed views with depth on disk."""
    folder = tmp_path_factory.mktemp("views")
    cameras = (Camera.orbit(), *cameras_around(10), Camera.orbit(30, 80), Camera.orbit(200, -60))
    drawn = [draw_view(SolidCaster(solids), camera, 128) for camera in cameras]
    rgba, depth = (np.stack(values) for values in zip(*drawn, strict=True))
    write_transforms(folder, PosedViews(to_bytes(rgba), cameras, depth))
    return ViewTruth([find_views(folder)])


def test_points_from_depth_are_where_the_exact_geometry_has_them(solids, seen):
    points = seen.points(3000, np.random.default_rng(0))
    distance, colour = distance_and_colour(solids, points.positions)
    clear = distance.abs() > 0.03
    agree = ((distance < 0) == points.inside)[clear]
    assert agree.float().mean() > 0.97, "but for what no view sees into"
    assert points.inside.float().mean() > 0.1
    assert (points.weight > 0).float().mean() > 0.99, "but for those that fell outside the cube"
    shown = points.coloured & (distance.abs() < 0.02)
    assert shown.sum() > 300
    assert ((points.colour - colour).abs().amax(-1)[shown] < 0.05).float().mean() > 0.85
    assert not points.coloured[distance > 0.1].any()


def test_views_without_depth_know_nothing_of_points(tmp_path):
    write_transforms(tmp_path, procedural_views(5, 3, 32))
    points = ViewTruth([find_views(tmp_path)]).points(64, np.random.default_rng(0))
    assert not points.weight.any()
    assert not points.coloured.any()


@pytest.mark.parametrize("kind", ["solids", "views"])
def test_rays_carry_the_colours_that_their_pixels_have(kind, solids, seen):
    truth = seen if kind == "views" else SolidTruth(solids)
    rays = truth.rays(400, np.random.default_rng(0))
    assert rays.rgba.shape == (1, 400, 4)
    assert 0.2 < rays.rgba[..., 3].mean() < 0.95
    distance, colour = first_hits(solids, rays.origin[:, None].expand_as(rays.directions), rays.directions)
    hit = (distance < 9)[..., None]
    expected = torch.cat([colour * hit, hit.float()], -1)
    close = (rays.rgba - expected).abs().amax(-1) < 0.01
    assert close.float().mean() > 0.99
    through = rays.near < rays.far
    assert through.float().mean() > 0.7, "the corners of an image may miss the cube"
    assert not rays.rgba[~through].any()


@pytest.mark.parametrize("kind", ["solids", "views"])
def test_weighted_points_are_as_often_inside_as_uniform_ones(kind, solids, seen):
    truth = seen if kind == "views" else SolidTruth(solids)
    points = truth.points(60_000, np.random.default_rng(2))
    assert points.weight.mean() == pytest.approx(1, abs=0.02)
    uniform = torch.rand(1, 60_000, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    share = (distance_and_colour(solids, uniform)[0] < 0).float().mean()
    weighted = (points.inside * points.weight).sum() / points.weight.sum()
    # What no view sees into counts as inside.
    assert weighted == pytest.approx(share.item(), rel=0.05 if kind == "solids" else 0.2)
    assert points.inside.float().mean() > 2 * share, "drawn more often where the object is"


@pytest.mark.parametrize("kind", ["solids", "views"])
def test_weighted_rays_hit_as_often_as_the_pixels_of_whole_images(kind, solids, seen):
    truth, rng = (seen if kind == "views" else SolidTruth(solids)), np.random.default_rng(4)
    batches = [truth.rays(500, rng) for _ in range(150)]
    weighted = np.mean([float((b.rgba[..., 3] * b.weight).mean()) for b in batches])
    if kind == "views":
        files = seen.files[0]
        share = np.mean([files.rgba(view)[..., 3] for view in range(len(files.cameras))]) / 255
    else:
        cameras = [random_camera(rng) for _ in range(60)]
        share = np.mean([draw_view(SolidCaster(solids), camera, 64)[0][..., 3] for camera in cameras])
    assert weighted == pytest.approx(share, rel=0.06)
    assert np.mean([float(b.rgba[..., 3].mean()) for b in batches]) > 1.5 * share


def test_importance_makes_a_mixture_uniform():
    rng, share = np.random.default_rng(0), 0.7
    draws = np.where(rng.random(200_000) < share, rng.beta(5, 2, 200_000), rng.random(200_000))
    weight = importance(share, 30 * draws**4 * (1 - draws))
    assert np.average(draws**2, weights=weight) == pytest.approx(1 / 3, abs=0.005)
    assert weight.max() <= 1 / (1 - share) + 1e-9


def test_the_loss_of_rays_has_a_gradient_where_an_opaque_ray_should_have_missed():
    depth = torch.tensor([[[20.0]]], requires_grad=True)

    class Field:
        def march(self, *arguments):
            return torch.zeros(1, 1, 3), -torch.expm1(-depth), depth

    nothing = torch.zeros(1, 1)
    rays = SupervisedRays(torch.zeros(1, 3), torch.zeros(1, 1, 3), nothing, nothing, torch.zeros(1, 1, 4), nothing + 1)
    ray_loss(Field(), torch.zeros(1), rays, 8, torch.Generator()).backward()
    assert depth.grad.item() > 0.1, "squared error alone would have exp(-20)"


@pytest.mark.parametrize("depth", [0.01, 0.7, 6.0])
def test_the_cross_entropy_of_alpha_is_that_of_pytorch(depth):
    class Field:
        def march(self, *arguments):
            return torch.zeros(1, 1, 3), torch.ones(1, 1, 1), torch.tensor([[[depth]]])

    one = torch.ones(1, 1)
    for covered in (0.0, 0.3, 1.0):
        rgba = torch.tensor([[[0.0, 0.0, 0.0, covered]]])
        rays = SupervisedRays(torch.zeros(1, 3), torch.zeros(1, 1, 3), one, one, rgba, one)
        alpha = torch.tensor([1 - np.exp(-depth)]).float()
        expected = torch.nn.functional.binary_cross_entropy(alpha, torch.tensor([covered]))
        squared = (rgba - torch.tensor([0.0, 0, 0, 1])).square().mean()
        found = ray_loss(Field(), torch.zeros(1), rays, 8, torch.Generator())
        torch.testing.assert_close(found, _RAY_WEIGHT * squared + _ALPHA_WEIGHT * expected, rtol=1e-3, atol=1e-5)


def test_truths_of_several_kinds_are_joined_in_their_order(solids, seen):
    joined = JoinedTruth([SolidTruth(solids), seen])
    points, rays = (getattr(joined, name)(50, np.random.default_rng(0)) for name in ("points", "rays"))
    assert points.positions.shape == (2, 50, 3)
    assert rays.rgba.shape == (2, 50, 4)
    alone = SolidTruth(solids).points(50, np.random.default_rng(0))
    assert torch.equal(points.positions[0], alone.positions[0])


def test_the_loss_of_points_heeds_only_what_is_known(solids, seen):
    class Field:
        def logits(self, triplane, positions):
            return torch.zeros_like(positions), 40 * torch.ones_like(positions[..., :1])

    points = SolidTruth(solids).points(200, np.random.default_rng(1))
    wrong = ~points.inside
    uncoloured = torch.zeros_like(wrong)
    right = type(points)(points.positions, points.inside, points.weight * ~wrong, points.colour, uncoloured)
    assert point_loss(Field(), None, right)[0].item() == pytest.approx(0, abs=1e-6)
    known = type(points)(points.positions, points.inside, 0.5 * points.weight, points.colour, uncoloured)
    share = (points.weight * wrong).sum() / points.weight.sum()
    assert point_loss(Field(), None, known)[0].item() == pytest.approx(2 * 40 * share.item(), rel=1e-4)


def test_random_cameras_look_at_the_object_from_about_the_canonical_distance():
    cameras = [random_camera(np.random.default_rng(seed)) for seed in range(30)]
    assert all(2.7 <= np.linalg.norm(camera.position) <= 3.3 for camera in cameras)
    assert all(np.abs(camera.project(np.zeros(3))).max() < 1e-9 for camera in cameras)

"""What training compares with: labels of points and colours of rays against exact geometry."""

import numpy as np
import pytest
import torch

from model.training.data.drawing import SolidCaster, draw_view, to_bytes
from model.training.data.framing import cameras_around, random_camera
from model.training.data.posed import PosedViews, find_views, write_transforms
from model.training.dataset import procedural_views
from model.training.procedural.objects import make_objects
from model.training.procedural.solids import distance_and_colour, first_hits
from model.training.supervision import JoinedTruth, SolidTruth, ViewTruth, point_loss
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
    assert points.known.all()
    shown = points.coloured & (distance.abs() < 0.02)
    assert shown.sum() > 300
    assert ((points.colour - colour).abs().amax(-1)[shown] < 0.05).float().mean() > 0.85
    assert not points.coloured[distance > 0.1].any()


def test_views_without_depth_know_nothing_of_points(tmp_path):
    write_transforms(tmp_path, procedural_views(5, 3, 32))
    points = ViewTruth([find_views(tmp_path)]).points(64, np.random.default_rng(0))
    assert not points.known.any()
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
    assert (rays.near < rays.far).all()


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
    unknown = type(points)(points.positions, points.inside, ~wrong, points.colour, torch.zeros_like(wrong))
    assert point_loss(Field(), None, unknown)[0].item() == pytest.approx(0, abs=1e-6)
    known = type(points)(points.positions, points.inside, points.known, points.colour, torch.zeros_like(wrong))
    assert point_loss(Field(), None, known)[0].item() == pytest.approx(40 * wrong.float().mean().item(), rel=1e-4)


def test_random_cameras_look_at_the_object_from_about_the_canonical_distance():
    cameras = [random_camera(np.random.default_rng(seed)) for seed in range(30)]
    assert all(2.7 <= np.linalg.norm(camera.position) <= 3.3 for camera in cameras)
    assert all(np.abs(camera.project(np.zeros(3))).max() < 1e-9 for camera in cameras)

"""The PyTorch renderer: planes lie as the conventions say, and volume rendering equals the runtime's."""

import numpy as np
import pytest
import torch

from export.sensitivity import decoder_sensitivity
from model import TriplaneRenderer
from runtime import Camera
from runtime.scene import Scene


class Analytic(TriplaneRenderer):
    """Replaces the network by a function of the point."""

    def __init__(self, density, colour):
        super().__init__(1, 8)
        self.fields = density, colour

    def forward(self, triplane, coords):
        density, colour = self.fields
        return colour(coords), density(coords)[..., None]


class Querying:
    """The runtime's backend interface on a PyTorch renderer."""

    workers, threads = None, 1

    def __init__(self, renderer):
        self.renderer = renderer

    def field(self, triplane, key=None):
        return lambda points: self.query(triplane, points)

    def query(self, triplane, points):
        with torch.no_grad():
            rgb, density = self.renderer(torch.from_numpy(triplane)[None], torch.from_numpy(points)[None])
        return rgb[0].numpy(), density[0, :, 0].numpy()


@pytest.mark.parametrize(("plane", "axes", "signs"), [(0, (0, 1), (1, -1)), (1, (0, 2), (1, 1)), (2, (2, 1), (1, -1))])
def test_each_plane_is_read_along_its_own_axes(plane, axes, signs):
    renderer = TriplaneRenderer(1, 8)
    triplane = torch.zeros(1, 3, 1, 64, 64)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    triplane[0, plane, 0] = columns + 1000 * rows
    points = torch.rand(1, 50, 3) * 1.8 - 0.9
    features = renderer.query_triplane(triplane, points)[0, :, plane]
    column, row = ((points[0, :, axis] * sign + 1) * 32 - 0.5 for axis, sign in zip(axes, signs, strict=True))
    torch.testing.assert_close(features, column + 1000 * row, rtol=1e-4, atol=0.05)


def test_interpolation_equals_a_naive_loop_and_the_border_continues():
    renderer = TriplaneRenderer(2, 8)
    triplane = torch.randn(1, 3, 2, 5, 7)
    points = torch.tensor([[[0.1, -0.4, 0.7], [1.0, 1.0, -1.0], [0.97, -0.99, 0.0], [3.0, -3.0, 3.0]]])
    features = renderer.query_triplane(triplane, points)[0]
    for index, (x, y, z) in enumerate(points[0].tolist()):
        for plane, (u, v) in enumerate([(x, -y), (x, z), (z, -y)]):
            column = min(max((u + 1) * 3.5 - 0.5, 0), 6)
            row = min(max((v + 1) * 2.5 - 0.5, 0), 4)
            expected = torch.zeros(2)
            for r in range(5):
                for c in range(7):
                    weight = max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
                    expected += weight * triplane[0, plane, :, r, c]
            torch.testing.assert_close(features[index, 2 * plane : 2 * plane + 2], expected, atol=1e-5, rtol=1e-5)


def test_an_asymmetric_object_is_on_the_right_side():
    red = torch.tensor([0.5, 0.0, 0.0])
    renderer = Analytic(
        lambda p: 300.0 * ((p - red).norm(dim=-1) < 0.2), lambda p: torch.zeros_like(p) + torch.tensor([1.0, 0, 0])
    )
    dummy = torch.zeros(3, 3, 1, 2, 2)
    cameras = [Camera.orbit(0, 0), Camera.orbit(90, 0), Camera.orbit(180, 0)]
    pictures = renderer.render_volume(dummy, 64, 32, cameras)
    darkness = (1 - pictures[:, 1]).sum(1)
    centres = (darkness * (torch.arange(32) + 0.5)).sum(1) / darkness.sum(1)
    assert centres[0] > 18
    assert centres[1] == pytest.approx(16, abs=0.5)
    assert centres[2] < 14


@pytest.mark.parametrize("camera", [None, Camera.orbit(130, -25, 2.0), Camera(np.eye(4), 70)])
def test_volume_rendering_equals_the_runtimes(camera):
    torch.manual_seed(3)
    renderer = TriplaneRenderer(4, 16, density_bias=-1.0)
    triplane = 3 * torch.randn(2, 3, 4, 8, 8)
    with torch.no_grad():
        expected = renderer.render_volume(triplane, 24, 21, camera)
    for item in range(2):
        frame = Scene(
            Querying(renderer), triplane[item].numpy(), 32 << 20, 20.0, decoder_sensitivity(renderer, triplane)
        ).render(camera, 21, 24)
        np.testing.assert_allclose(frame.rgb, expected[item].permute(1, 2, 0).numpy(), atol=1e-3)


def test_gradient_checkpointing_does_not_change_the_gradient(monkeypatch):
    import model.renderer

    torch.manual_seed(0)
    renderer = TriplaneRenderer(2, 8)
    triplane = torch.randn(1, 3, 2, 8, 8, requires_grad=True)
    renderer.render_volume(triplane, 8, 16).square().sum().backward()
    whole, triplane.grad = triplane.grad, None
    monkeypatch.setitem(model.renderer._POINTS_AT_ONCE, "cpu", 500)
    renderer.render_volume(triplane, 8, 16).square().sum().backward()
    torch.testing.assert_close(triplane.grad, whole)


def test_jitter_moves_samples_but_not_the_mean():
    renderer = Analytic(lambda p: torch.full_like(p[..., 0], 0.7), lambda p: p * 0.5 + 0.5)
    dummy = torch.zeros(1, 3, 1, 2, 2)
    still = renderer.render_volume(dummy, 16, 16)
    moved = torch.stack(
        [renderer.render_volume(dummy, 16, 16, jitter=torch.Generator().manual_seed(i)) for i in range(40)]
    )
    assert (moved[0] - still).abs().max() > 1e-4
    torch.testing.assert_close(moved.mean(0), still, atol=3e-3, rtol=0)


def test_bad_arguments_are_refused():
    renderer, triplane = TriplaneRenderer(1, 8), torch.zeros(2, 3, 1, 2, 2)
    with pytest.raises(ValueError, match="at least 1"):
        renderer.render_volume(triplane, num_samples=0)
    with pytest.raises(ValueError, match="1 cameras for 2 items"):
        renderer.render_volume(triplane, camera=[Camera.orbit()])

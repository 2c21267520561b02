"""The runtime's drawing, which leaves out what is empty and stops behind surfaces, against the plain reference."""

import numpy as np
import pytest
import torch

import runtime.scene
from export.sensitivity import decoder_sensitivity
from model.renderer import TriplaneRenderer
from runtime import Camera
from runtime.scene import Scene

SIDE, MEMORY = 128, 64 << 20
CAMERAS = [Camera.orbit(), Camera.orbit(130, -25, 2.0), Camera(np.eye(4), 70)]


class Querying:
    """A backend that asks a PyTorch renderer, and counts what it is asked."""

    workers, threads = None, 1

    def __init__(self, renderer):
        self.renderer, self.asked = renderer, 0

    def field(self, triplane, key=None):
        return lambda points: self.query(triplane, points)

    def query(self, triplane, points):
        self.asked += len(points)
        with torch.no_grad():
            rgb, density = self.renderer(torch.from_numpy(triplane.copy())[None], torch.from_numpy(points)[None])
        return rgb[0].numpy(), density[0, :, 0].numpy()


def scene_of(backend, triplane):
    sensitivity = decoder_sensitivity(backend.renderer, torch.from_numpy(triplane)[None])
    return Scene(backend, triplane, MEMORY, 20.0, sensitivity)


def summing(channels, offset, gain):
    """A decoder whose density logit is `gain` times the sum of the features, less `offset`."""
    renderer = TriplaneRenderer(channels, 16)
    with torch.no_grad():
        for parameter in renderer.parameters():
            parameter.zero_()
        renderer.mlp[0].weight[0] = 1
        renderer.mlp[2].weight[0, 0] = 1
        renderer.density.weight[0, 0], renderer.density.bias[0] = gain, -offset
        renderer.colour.weight[:, 0] = torch.tensor([0.5, -0.5, 1.0])
    return renderer


def shells():
    """Walls one texel thick, in each of the three planes' directions."""
    triplane = np.zeros((3, 1, SIDE, SIDE), np.float32)
    triplane[0, 0, :, 40] = triplane[0, 0, 77, :] = triplane[1, 0, 90, :] = 1
    return summing(1, 12, 24), triplane


def ring():
    """A hollow cylinder one texel thick."""
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    triplane = np.zeros((3, 1, SIDE, SIDE), np.float32)
    triplane[1, 0] = np.abs(np.hypot(*np.meshgrid(axis, axis)) - 40) < 0.6
    return summing(1, 12, 24), triplane


def full():
    return summing(1, -3, 1), np.zeros((3, 1, SIDE, SIDE), np.float32)


def haze():
    """Nowhere dense enough to be asked for, everywhere enough to be seen."""
    smooth = np.sin(np.linspace(0, 3, SIDE, dtype=np.float32))
    return summing(1, 7.5, 1), np.broadcast_to(smooth, (3, 1, SIDE, SIDE)).copy()


def empty():
    return summing(1, 30, 1), np.zeros((3, 1, SIDE, SIDE), np.float32)


def noise(seed=0, channels=4, offset=2.0):
    torch.manual_seed(seed)
    renderer = TriplaneRenderer(channels, 32, density_bias=-offset)
    return renderer, np.random.default_rng(seed).standard_normal((3, channels, SIDE, SIDE)).astype(np.float32) * 3


def lumps(seed=1, offset=9.0):
    """Smooth random planes: solid here, empty there."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(3, 4, 10, 10, generator=generator) * 12
    planes = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").numpy()
    torch.manual_seed(seed)
    return TriplaneRenderer(4, 32, density_bias=-offset), np.ascontiguousarray(planes)


def speckled(seed=2):
    """Smooth planes with noise of a single texel on top, read by a decoder steep enough to make specks of it."""
    renderer, planes = lumps(seed, offset=14.0)
    with torch.no_grad():
        renderer.density.weight *= 3
    return renderer, planes + np.random.default_rng(seed).standard_normal(planes.shape).astype(np.float32)


CASES = [speckled, shells, ring, full, haze, empty, noise, lumps]


@pytest.mark.parametrize("camera", CAMERAS, ids=["outside", "near", "inside"])
@pytest.mark.parametrize("case", CASES)
def test_the_fast_drawing_equals_the_plain_one(case, camera):
    renderer, triplane = case()
    with torch.no_grad():
        expected = renderer.render_volume(torch.from_numpy(triplane)[None], 48, 40, camera)[0].permute(1, 2, 0).numpy()
    frame = scene_of(Querying(renderer), triplane).render(camera, 40, 48)
    assert np.abs(frame.rgb - expected).max() < 1 / 255


@pytest.mark.parametrize("samples", [96, 150])
@pytest.mark.parametrize("case", CASES)
def test_so_does_the_drawing_by_the_finer_grid(case, samples, monkeypatch):
    monkeypatch.setattr(runtime.scene, "_MANY_SAMPLES", 0)
    renderer, triplane = case()
    for camera in CAMERAS:
        with torch.no_grad():
            plain = renderer.render_volume(torch.from_numpy(triplane)[None], samples, 32, camera)
        frame = scene_of(Querying(renderer), triplane).render(camera, 32, samples)
        assert np.abs(frame.rgb - plain[0].permute(1, 2, 0).numpy()).max() < 1 / 255


def test_a_large_view_asks_less_by_the_finer_grid():
    renderer, triplane = ring()
    backend = Querying(renderer)
    scene = scene_of(backend, triplane)
    counts = []
    for size in (180, 210):  # On either side of the limit; the second time what a view shares is there.
        for _ in range(2):
            backend.asked = 0
            scene.render(image_size=size, num_samples=100)
            counts.append(backend.asked / size**2)
    assert counts[3] < 0.8 * counts[1]


@pytest.mark.parametrize("samples", [1, 3, 8, 17, 130, 300])
@pytest.mark.parametrize("case", [speckled, shells, ring, haze, lumps])
def test_no_block_of_samples_is_left_out_that_holds_something(case, samples):
    renderer, triplane = case()
    camera = Camera.orbit(35, elevation=-40)
    with torch.no_grad():
        plain = renderer.render_volume(torch.from_numpy(triplane)[None], samples, 24, camera)
    frame = scene_of(Querying(renderer), triplane).render(camera, 24, samples)
    assert np.abs(frame.rgb - plain[0].permute(1, 2, 0).numpy()).max() < 1 / 255


@pytest.mark.parametrize("seed", range(4))
def test_random_triplanes_are_drawn_as_the_plain_method_does(seed):
    renderer, triplane = (noise if seed % 2 else lumps)(seed + 10, offset=float(3 * seed + 3))
    with torch.no_grad():
        expected = renderer.render_volume(torch.from_numpy(triplane)[None], 32, 32)[0].permute(1, 2, 0).numpy()
    frame = scene_of(Querying(renderer), triplane).render(None, 32, 32)
    assert np.abs(frame.rgb - expected).max() < 1 / 255


@pytest.mark.parametrize("seed", [102, 106, 113, 116, 141, 144])
def test_what_the_grid_knows_of_haze_does_not_add_up_to_a_step_of_eight_bits(seed):
    """Smooth fields just below the density of haze: the longest ways on which errors of interpolation have one sign."""
    renderer, triplane = lumps(seed, offset=4 + seed % 10 / 2)
    for camera in CAMERAS:
        with torch.no_grad():
            plain = renderer.render_volume(torch.from_numpy(triplane)[None], 130, 40, camera)
        frame = scene_of(Querying(renderer), triplane).render(camera, 40, 130)
        assert np.abs(frame.rgb - plain[0].permute(1, 2, 0).numpy()).max() < 1 / 255


@pytest.mark.parametrize("seed", [200, 201, 203])
def test_nor_where_the_decoder_is_steep(seed):
    renderer, triplane = lumps(seed, offset=6 + seed % 6)
    with torch.no_grad():
        renderer.density.weight *= 3
    scene = scene_of(Querying(renderer), triplane)
    for camera in CAMERAS:
        with torch.no_grad():
            plain = renderer.render_volume(torch.from_numpy(triplane)[None], 130, 40, camera)
        assert np.abs(scene.render(camera, 40, 130).rgb - plain[0].permute(1, 2, 0).numpy()).max() < 1 / 255


def test_a_second_view_asks_only_where_something_is():
    renderer, triplane = ring()
    backend = Querying(renderer)
    scene = scene_of(backend, triplane)
    scene.render(image_size=64, num_samples=64)
    backend.asked = 0
    scene.render(Camera.orbit(50), image_size=64, num_samples=64)
    assert 0 < backend.asked < 64**3 / 5


def test_what_is_behind_a_surface_is_not_asked_for():
    renderer, triplane = full()
    backend = Querying(renderer)
    scene = scene_of(backend, triplane)
    scene.render(image_size=8, num_samples=8)
    backend.asked = 0
    scene.render(image_size=64, num_samples=256)
    assert 0 < backend.asked < 64 * 64 * 256 / 4

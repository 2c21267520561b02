"""Drawing, against closed forms and naive loops; the density comes from a function instead of a network."""

import math

import numpy as np
import pytest

import runtime
from runtime import Camera
from runtime.geometry.rays import camera_rays, clip_to_cube
from runtime.rendering.marching import composite, midpoints
from runtime.scene import Scene

EMPTY = np.zeros((3, 1, 128, 128), np.float32)


class Field:
    """A backend whose triplane is ignored: colour and density are functions of the point."""

    workers, threads = None, 1

    def __init__(self, density, colour=lambda p: np.broadcast_to(np.float32(0.25), p.shape)):
        self.density, self.colour, self.largest = density, colour, 0

    def field(self, triplane, key=None):
        return self.query

    def query(self, points):
        self.largest = max(self.largest, len(points))
        return self.colour(points).astype(np.float32), self.density(points).astype(np.float32)


def ball(centre, radius, density):
    return lambda p: density * (np.linalg.norm(p - np.asarray(centre, np.float32), axis=1) < radius)


def scene(field, memory=64 << 20):
    return Scene(field, EMPTY, memory, 20.0, (0, 0, 0))


def test_a_sphere_of_constant_density_matches_its_closed_form():
    radius, density = 0.6, 1.5
    frame = scene(Field(ball([0, 0, 0], radius, density))).render(image_size=33, num_samples=1500)
    rays = camera_rays(Camera.orbit(), 33, 33)
    along = -rays.directions @ rays.origin
    closest = np.sqrt(np.maximum(rays.origin @ rays.origin - along**2, 0))
    chord = 2 * np.sqrt(np.maximum(radius**2 - closest**2, 0))
    alpha = 1 - np.exp(-density * chord).reshape(33, 33)
    np.testing.assert_allclose(frame.alpha, alpha, atol=2e-3)
    np.testing.assert_allclose(frame.rgb, np.repeat(0.25 * alpha[..., None] + 1 - alpha[..., None], 3, 2), atol=2e-3)


@pytest.mark.parametrize("z", [-0.6, 0.6])
def test_a_sphere_behind_or_before_the_origin_is_seen_at_its_depth(z):
    frame = scene(Field(ball([0, 0, z], 0.3, 200))).render(Camera.orbit(0, 0), 65, 400)
    assert frame.alpha[32, 32] > 0.99
    assert frame.depth[32, 32] == pytest.approx(3 - z - 0.3, abs=0.02)
    assert frame.alpha[0, 0] == 0
    assert frame.depth[0, 0] == 0
    np.testing.assert_array_equal(frame.rgb[0, 0], 1)


def test_depth_is_along_the_viewing_axis():
    wall = Field(lambda p: 500.0 * (p[:, 2] < 0))
    frame = scene(wall).render(Camera.orbit(0, 0), 32, 1000)
    seen = frame.depth[4:28, 4:28]
    np.testing.assert_allclose(seen, 3, atol=0.02)


@pytest.mark.parametrize("azimuth", [0, 40, 90, 180, -75])
@pytest.mark.parametrize("elevation", [0, 20, -30])
def test_an_asymmetric_object_falls_on_the_right_pixels(azimuth, elevation):
    centres = np.array([[0.5, 0, 0], [0, 0.4, 0], [0, 0, 0.6]])
    camera = Camera.orbit(azimuth, elevation)

    def colour(p):
        return np.eye(3)[np.argmin(np.linalg.norm(p[:, None] - centres, axis=2), axis=1)]

    def density(p):
        return 500.0 * (np.linalg.norm(p[:, None] - centres, axis=2).min(1) < 0.12)

    size = 96
    frame = scene(Field(density, colour)).render(camera, size, 200, background=(0, 0, 0))
    for channel, centre in enumerate(centres):
        mine = frame.rgb[..., channel]
        ahead = (np.linalg.norm(centres - camera.position, axis=1) < np.linalg.norm(centre - camera.position)) & (
            np.linalg.norm(camera.project(centres) - camera.project(centre), axis=1) < 0.4
        )
        if ahead.any():
            continue
        y, x = np.mgrid[0:size, 0:size] + 0.5
        found = np.array([(x * mine).sum(), (y * mine).sum()]) / mine.sum()
        expected = (camera.project(centre) + 1) / 2 * size
        np.testing.assert_allclose(found, expected, atol=1.0)


def test_non_square_pictures_keep_the_vertical_field_of_view():
    field = Field(ball([0, 0, 0], 0.5, 300))
    square, wide = scene(field).render(image_size=48), scene(field).render(image_size=(48, 96))
    np.testing.assert_array_equal(wide.rgb[:, 24:72], square.rgb)


def test_rays_are_clipped_as_a_naive_walk_finds():
    rng = np.random.default_rng(0)
    for origin in (np.array([0.2, -0.3, 0.5]), np.array([2.0, 1.0, -1.5])):
        directions = rng.standard_normal((50, 3))
        directions[0] = [0, 0, 1]
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        near, far = clip_to_cube(origin, directions)
        walk = np.linspace(0, 6, 60_001)
        for ray in range(50):
            inside = (np.abs(origin + walk[:, None] * directions[ray]) <= 1).all(1)
            length = inside.sum() * 1e-4
            assert far[ray] - near[ray] == pytest.approx(length, abs=3e-4)
            if inside.any():
                assert near[ray] == pytest.approx(walk[inside][0], abs=3e-4)


def test_compositing_equals_a_naive_loop():
    rng = np.random.default_rng(1)
    rgb = rng.random((3, 7, 5), np.float32)
    density = 4 * rng.random((7, 5), np.float32)
    distances = np.sort(rng.random((7, 5), np.float32), axis=0) + 2
    step, cosine = rng.random(5, np.float32), rng.random(5, np.float32)
    colour, alpha, depth = composite(rgb, density, distances, step, cosine)
    for ray in range(5):
        light, total, along, opaque = 1.0, np.zeros(3), 0.0, 0.0
        for sample in range(7):
            part = 1 - math.exp(-density[sample, ray] * step[ray])
            total += light * part * rgb[:, sample, ray]
            along += light * part * distances[sample, ray]
            opaque += light * part
            light *= 1 - part
        np.testing.assert_allclose(colour[:, ray], total, rtol=1e-5)
        assert alpha[ray] == pytest.approx(opaque, rel=1e-5)
        assert depth[ray] == pytest.approx(along * cosine[ray], rel=1e-5)


def test_samples_are_the_midpoints_of_equal_intervals():
    rays = camera_rays(Camera.orbit(), 4, 4)
    distances = midpoints(rays, 8)
    points = rays.origin + distances[..., None] * rays.directions
    step = (rays.far - rays.near) / 8
    np.testing.assert_allclose(distances[0], rays.near + step / 2, rtol=1e-6)
    np.testing.assert_allclose(distances[-1], rays.far - step / 2, rtol=1e-6)
    assert (np.abs(points[:, rays.hits]) <= 1 + 1e-6).all()


def test_a_camera_inside_the_cube_sees_what_is_before_it_only():
    field = Field(ball([0, 0, 0.8], 0.15, 300))
    pose = np.eye(4)
    assert scene(field).render(Camera(pose), 16).alpha.max() == 0
    pose[:3, :3] = np.diag([-1, 1, -1])
    assert scene(field).render(Camera(pose), 16, 200).alpha.max() > 0.9


def test_a_smaller_memory_budget_changes_the_chunks_and_not_the_picture():
    large, small = Field(ball([0.1, 0, 0], 0.5, 8)), Field(ball([0.1, 0, 0], 0.5, 8))
    expected = scene(large, 1 << 30).render(image_size=40)
    actual = scene(small, 4 << 20).render(image_size=40)
    np.testing.assert_array_equal(actual.rgb, expected.rgb)
    assert small.largest < large.largest / 8


def test_an_orbit_is_lazy_and_goes_once_around():
    field = Field(ball([0.5, 0, 0], 0.2, 300))
    frames = scene(field).orbit(4, elevation=0, image_size=16)
    assert field.largest == 0
    rendered = list(frames)
    assert len(rendered) == 4
    columns = [np.average(np.arange(16) + 0.5, weights=frame.alpha.sum(0)) for frame in rendered]
    assert columns[0] > 9
    assert columns[2] < 7


def test_drawing_keeps_to_the_memory_budget():
    import tracemalloc

    field = Field(ball([0, 0, 0], 0.7, 5))
    budget, size = 16 << 20, 512
    tracemalloc.start()
    scene(field, budget).render(image_size=size, num_samples=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    picture = size * size * (3 + 1 + 1) * 4
    assert peak < budget + 2 * picture


@pytest.mark.parametrize("background", [(1, 1), "white", (0, 0, 2), (0, np.nan, 0), None])
def test_bad_backgrounds_are_refused(background):
    with pytest.raises(runtime.OptionError, match="background"):
        scene(Field(ball([0, 0, 0], 1, 1))).render(image_size=4, background=background)


@pytest.mark.parametrize(
    "options",
    [{"image_size": 0}, {"image_size": 1.5}, {"image_size": (8, 0)}, {"num_samples": 0}, {"image_size": 10**6}],
)
def test_sizes_out_of_range_are_refused(options):
    with pytest.raises(runtime.OptionError, match="whole number"):
        scene(Field(ball([0, 0, 0], 1, 1))).render(**options)


def test_a_matrix_is_not_a_camera():
    with pytest.raises(runtime.CameraError, match="Camera"):
        scene(Field(ball([0, 0, 0], 1, 1))).render(np.eye(4))


def test_frames_and_meshes_compare_without_an_exception():
    ball_scene = scene(Field(ball([0, 0, 0], 0.6, 30.0)))
    first, again, other = (ball_scene.render(image_size=size) for size in (12, 12, 13))
    assert first == again
    assert first != other
    assert first != "a frame"
    assert len({first, again}) == 1
    mesh = runtime.Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]]), np.zeros((3, 3), np.float32))
    assert mesh == runtime.Mesh(mesh.vertices.copy(), mesh.faces.copy(), mesh.colors.copy())


def test_an_exact_view_queries_every_sample_and_the_fast_one_is_within_a_step_of_8_bits():
    field = Field(ball([0.2, 0, 0], 0.5, 40.0))
    exact = scene(field).render(image_size=24, num_samples=32, exact=True)
    fast = scene(field).render(image_size=24, num_samples=32)
    rays = camera_rays(Camera.orbit(), 24, 24)
    points = rays.origin + midpoints(rays, 32)[..., None] * rays.directions
    density = field.density(points.reshape(-1, 3)).reshape(32, -1)
    wanted = 1 - np.exp(-(density * (rays.far - rays.near) / 32).sum(0))
    np.testing.assert_allclose(exact.alpha.ravel(), wanted, atol=1e-5)
    assert np.abs(exact.rgb - fast.rgb).max() <= 1 / 255
    seen = exact.alpha > 0.5
    np.testing.assert_allclose(exact.depth[seen], fast.depth[seen], atol=1e-3)

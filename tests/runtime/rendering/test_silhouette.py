"""The silhouette that an object is held to: nothing outside the mask, something everywhere inside it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime
from runtime import Camera
from runtime.geometry.rays import camera_rays
from runtime.preprocessing import PreparedImage
from runtime.rendering.silhouette import Silhouette
from runtime.scene import Scene

SIZE, SCALE = 128, 20.0
PLANES = np.zeros((3, 1, 128, 128), np.float32)


class Haze:
    """A backend whose scene is a ball of thin haze, with a solid core."""

    workers, threads = None, 1

    def __init__(self, haze):
        self._haze = haze

    def field(self, triplane, key=None):
        return self.query

    def query(self, points):
        away = np.linalg.norm(points, axis=1)
        haze = self._haze / (1 + np.exp(40 * (away - 0.6)))
        density = haze + 100 / (1 + np.exp(60 * (away - 0.2)))
        return np.full(points.shape, 0.5, np.float32), density.astype(np.float32)


def scene(mask, haze=1.0, silhouette=True):
    rgba = np.broadcast_to(mask, (4, *mask.shape)).astype(np.float32)
    crop = (rgba * 255 + 0.5).astype(np.uint8)
    source = PreparedImage(rgba[:3] * 2 - 1, rgba[3], "alpha", 1.0, crop, (0, 0, len(mask)))
    return Scene(Haze(haze), PLANES, 64 << 20, SCALE, (0.0, 0.0, 0.0), source=source, silhouette=silhouette)


def disc(radius, size=SIZE):
    return np.hypot(*(np.mgrid[0:size, 0:size] - (size - 1) / 2)) < radius


def test_from_the_front_alpha_is_the_masks():
    drawn = scene(disc(30)).render(image_size=SIZE).alpha
    assert (drawn[disc(28)] > 0.9).all()
    assert (drawn[~disc(33)] < 1e-3).all()
    plain = scene(disc(30), silhouette=False).render(image_size=SIZE).alpha
    assert plain[disc(28)].min() < 0.8
    assert plain[~disc(33)].max() > 0.1


@pytest.mark.parametrize("azimuth", [0, 35, 120, 180])
def test_leaving_out_what_is_empty_changes_no_pixel(azimuth):
    made = scene(disc(24))
    camera = Camera.orbit(azimuth)
    fast, every = made.render(camera, 96), made.render(camera, 96, exact=True)
    assert np.abs(fast.rgb - every.rgb).max() < 1.5 / 255
    assert np.abs(fast.alpha - every.alpha).max() < 1.5 / 255


def test_no_point_outside_the_silhouette_is_seen_from_anywhere():
    made, camera = scene(disc(24)), Camera.orbit(75, 5)
    frame = made.render(camera, 64)
    hit = frame.alpha > 0.5
    assert hit.any()
    rays = camera_rays(camera, 64, 64)
    far = (frame.depth.reshape(-1) / rays.cosine)[hit.reshape(-1), None] * rays.directions[hit.reshape(-1)]
    places = Camera.orbit().project(rays.origin + far)
    assert np.hypot(*places.T).max() < (24 + 4) / (SIZE / 2)


def test_a_mesh_covers_the_silhouette_and_no_more():
    trimesh = pytest.importorskip("trimesh")
    mesh, camera = scene(disc(24)).mesh(64, clean=False), Camera.orbit()
    plain = scene(disc(24), silhouette=False).mesh(64, clean=False)
    rays = camera_rays(camera, SIZE // 2, SIZE // 2)

    def covered(cut):
        surface = trimesh.Trimesh(cut.vertices, cut.faces, process=False)
        origins = np.repeat(rays.origin[None], len(rays.directions), 0)
        return surface.ray.intersects_any(origins, rays.directions).reshape(SIZE // 2, SIZE // 2)

    assert covered(mesh)[disc(11, SIZE // 2)].all()
    assert not covered(mesh)[~disc(14, SIZE // 2)].any()
    assert covered(plain)[disc(11, SIZE // 2)].mean() < 0.6


def test_what_is_solid_and_inside_stays_as_it_is():
    inside = disc(SIZE)
    inside[:3] = False
    held, plain = scene(inside, haze=60.0), scene(inside, haze=60.0, silhouette=False)
    core = np.random.default_rng(0).uniform(-0.3, 0.3, (500, 3)).astype(np.float32)
    held.render(image_size=8)
    np.testing.assert_array_equal(held._field(core)[1], plain._field(core)[1])


def test_a_mask_that_is_everywhere_is_no_silhouette():
    everywhere = np.ones((SIZE, SIZE), bool)
    held, plain = scene(everywhere), scene(everywhere, silhouette=False)
    np.testing.assert_array_equal(held.render(image_size=32).rgb, plain.render(image_size=32).rgb)


@given(st.integers(0, 2**32 - 1), st.sampled_from([32, 96]))
def test_factors_are_those_of_the_pixel_that_a_point_projects_to(seed, side):
    rng = np.random.default_rng(seed)
    camera, factor = Camera.orbit(), rng.random((side, side)).astype(np.float32)
    points = rng.uniform(-0.7, 0.7, (50, 3)).astype(np.float32)
    places = (camera.project(points) + 1) * side / 2
    # A point on the line between two pixels may be rounded to either.
    clear = (np.abs(places - np.round(places)) > 1e-3).all(1)
    column, row = np.clip(places, 0, side - 1).astype(int).T
    np.testing.assert_array_equal(Silhouette(camera, factor).at(points)[clear], factor[row, column][clear])


def test_batches_threads_and_order_change_no_pixel(tiny_bundle):
    image = np.zeros((80, 80, 4), np.uint8)
    image[20:60, 20:60] = (200, 80, 40, 255)
    with runtime.load(tiny_bundle, threads=1) as one, runtime.load(tiny_bundle) as two:
        first = one.render(image, image_size=24, silhouette=True)
        np.testing.assert_array_equal(first, two.render(image, image_size=24, silhouette=True))
        np.testing.assert_array_equal(first, two.render([image, image], image_size=24, silhouette=True)[1])
        made = two.reconstruct(image, silhouette=True)
        np.testing.assert_array_equal(made.triplane, two.reconstruct(image).triplane)
        made.render(Camera.orbit(50), 30, normals=True)
        np.testing.assert_array_equal(made.render(image_size=24).to_uint8(), first)
        assert np.abs(two.render(image, image_size=24).astype(int) - first).max() > 10

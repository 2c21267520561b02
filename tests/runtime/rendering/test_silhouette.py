"""The silhouette that an object is held to: nothing outside the mask, something everywhere inside it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime
from runtime import Camera
from runtime.geometry.rays import camera_rays
from runtime.meshing.surface import _lattice
from runtime.preprocessing import PreparedImage
from runtime.rendering import projection
from runtime.rendering.occupancy import to_logit
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
        density = haze + 100 / (1 + np.exp(np.minimum(60 * (away - 0.2), 80)))
        return np.full(points.shape, 0.5, np.float32), density.astype(np.float32)


def scene(mask, haze=1.0, held=True):
    rgba = np.broadcast_to(mask, (4, *mask.shape)).astype(np.float32)
    crop = (rgba * 255 + 0.5).astype(np.uint8)
    source = PreparedImage(rgba[:3] * 2 - 1, rgba[3], "alpha", 1.0, crop, (0, 0, len(mask)))
    return Scene(Haze(haze), PLANES, 64 << 20, SCALE, (0.0, 0.0, 0.0), source=source, silhouette=held)


def disc(radius, size=SIZE):
    return np.hypot(*(np.mgrid[0:size, 0:size] - (size - 1) / 2)) < radius


def test_from_the_front_alpha_is_the_masks():
    drawn = scene(disc(30)).render(image_size=SIZE).alpha
    assert (drawn[disc(28)] > 0.9).all()
    assert (drawn[~disc(33)] < 1e-3).all()
    plain = scene(disc(30), held=False).render(image_size=SIZE).alpha
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
    plain = scene(disc(24), held=False).mesh(64, clean=False)
    rays = camera_rays(camera, SIZE // 2, SIZE // 2)

    def covered(cut):
        surface = trimesh.Trimesh(cut.vertices, cut.faces, process=False)
        origins = np.repeat(rays.origin[None], len(rays.directions), 0)
        return surface.ray.intersects_any(origins, rays.directions).reshape(SIZE // 2, SIZE // 2)

    assert covered(mesh)[disc(11, SIZE // 2)].all()
    assert not covered(mesh)[~disc(14, SIZE // 2)].any()
    assert covered(plain)[disc(11, SIZE // 2)].mean() < 0.6


def test_the_grid_knows_every_side_of_the_surface_that_is_cut():
    made = scene(disc(24))
    made.render(image_size=8)
    field, grid = made._for_mesh
    logits = _lattice(field, grid, 48, SCALE, made._pool)[1:-1, 1:-1, 1:-1]
    axis = np.linspace(-1, 1, 48, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    np.testing.assert_array_equal(logits > 0, (to_logit(field(points)[1], SCALE) > 0).reshape(logits.shape))


def test_a_large_view_by_the_finer_grid_is_the_same():
    made, camera = scene(disc(24)), Camera.orbit(35)
    fast, every = made.render(camera, 224, 96), made.render(camera, 224, 96, exact=True)
    assert made._fine is not None
    assert np.abs(fast.rgb - every.rgb).max() < 1.5 / 255


def test_an_object_that_is_translucent_all_over_is_as_one_that_is_not():
    glass, solid = (scene(disc(30) * alpha).render(Camera.orbit(40)) for alpha in (0.4, 1.0))
    np.testing.assert_allclose(glass.rgb, solid.rgb, atol=1e-6)
    assert len(scene(disc(30) * 0.4).mesh(48).faces) > 100


def test_a_look_that_failed_is_tried_again(monkeypatch):
    made, look = scene(disc(30)), projection.march
    monkeypatch.setattr(projection, "march", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.render(image_size=16)
    monkeypatch.setattr(projection, "march", look)
    np.testing.assert_array_equal(made.render(image_size=16).rgb, scene(disc(30)).render(image_size=16).rgb)


def test_a_kept_background_is_no_silhouette_in_any_proportions(tiny_runtime):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert (tiny_runtime.reconstruct(image, background="keep").source.alpha == 1).all()
    held, plain = (tiny_runtime.render(image, background="keep", image_size=16, silhouette=on) for on in (True, False))
    np.testing.assert_array_equal(held, plain)


def test_what_is_solid_and_inside_stays_as_it_is():
    inside = disc(SIZE)
    inside[:3] = False
    held, plain = scene(inside, haze=60.0), scene(inside, haze=60.0, held=False)
    core = np.random.default_rng(0).uniform(-0.3, 0.3, (500, 3)).astype(np.float32)
    held.render(image_size=8)
    np.testing.assert_array_equal(held._field(core)[1], plain._field(core)[1])


def test_a_mask_that_is_everywhere_is_no_silhouette():
    everywhere = np.ones((SIZE, SIZE), bool)
    held, plain = scene(everywhere), scene(everywhere, held=False)
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

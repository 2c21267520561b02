"""The input image projected onto a scene: colours alone, where the image shows what is drawn, and nowhere else."""

import numpy as np
import pytest

import runtime
from runtime import Camera
from runtime.preprocessing import PreparedImage
from runtime.scene import Scene

SIZE = 256
PLANES = np.zeros((3, 1, 128, 128), np.float32)


class Balls:
    """A backend whose scene is grey: a ball in the middle, and a smaller one behind it, seen from the front."""

    workers, threads = None, 1

    def field(self, triplane, key=None):
        return self.query

    def query(self, points):
        forward = Camera.orbit().forward.astype(np.float32)
        front = 0.45 - np.linalg.norm(points, axis=1)
        behind = 0.2 - np.linalg.norm(points - 0.7 * forward, axis=1)
        logit = 60 * np.maximum(front, behind)
        return np.full(points.shape, 0.5, np.float32), (20 * np.logaddexp(0, logit)).astype(np.float32)


def scene(image, alpha):
    rgba = np.concatenate([image.transpose(2, 0, 1), alpha[None]]).astype(np.float32)
    crop = (rgba * 255 + 0.5).astype(np.uint8)
    source = PreparedImage(rgba[:3] * 2 - 1, rgba[3], "alpha", 1.0, crop, (0, 0, len(alpha)))
    return Scene(Balls(), PLANES, 64 << 20, 20.0, (0.0, 0.0, 0.0), source=source)


@pytest.fixture(scope="module")
def striped():
    """What the input camera sees of the balls, in red and green stripes, on a black background of the mask."""
    grey = Scene(Balls(), PLANES, 64 << 20, 20.0, (0.0, 0.0, 0.0)).render(image_size=SIZE)
    stripes = np.where((np.arange(SIZE) // 16 % 2)[None, :, None], [1.0, 0, 0], [0, 1.0, 0])
    image = np.broadcast_to(stripes, (SIZE, SIZE, 3)) * (grey.alpha > 0.5)[..., None]
    return image, grey.alpha > 0.5


def test_from_the_front_the_image_is_what_is_seen(striped):
    image, alpha = striped
    frame = scene(image, alpha).render(image_size=SIZE, projected=True)
    inner = np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2)) < 30
    assert np.abs(frame.rgb - image)[inner].mean() < 0.05


@pytest.mark.parametrize("angle", [0, 40, 90])
def test_geometry_stays_and_so_does_what_the_image_does_not_show(striped, angle):
    made = scene(*striped)
    camera = Camera.orbit(angle)
    plain, projected = made.render(camera), made.render(camera, projected=True)
    np.testing.assert_array_equal(projected.alpha, plain.alpha)
    np.testing.assert_array_equal(projected.depth, plain.depth)
    changed = np.abs(projected.rgb - plain.rgb).max(-1) > 0.05
    assert changed.any()
    if angle == 90:
        # The far half of the ball is not seen; the camera stands higher than its middle, so a little of it is.
        columns = np.flatnonzero(changed.any(0))
        ball = np.flatnonzero((plain.alpha > 0.5).any(0))
        assert columns.max() < (ball[0] + ball[-1]) / 2 + 5


def test_nothing_is_projected_through_the_front_onto_what_is_behind(striped):
    made = scene(*striped)
    behind = Camera.orbit(180, -20)
    plain, projected = made.render(behind), made.render(behind, projected=True)
    np.testing.assert_allclose(projected.rgb, plain.rgb, atol=0.05)
    assert np.abs(projected.rgb - plain.rgb).mean() < 1e-3


def test_pixels_at_the_edge_of_the_mask_are_not_used(striped):
    image, alpha = striped
    polluted = image.copy()
    edge = alpha & ~np.roll(alpha, 2, 0)
    polluted[edge] = (0, 0, 1)
    frame = scene(polluted, alpha).render(Camera.orbit(15), projected=True)
    assert (frame.rgb[..., 2] > frame.rgb[..., :2].max(-1) + 0.2).sum() == 0


def test_batches_threads_and_other_views_change_no_pixel(tiny_bundle):
    image = np.zeros((80, 80, 4), np.uint8)
    image[20:60, 20:60] = (200, 80, 40, 255)
    image[30:40, 30:40, :3] = (0, 90, 200)
    with runtime.load(tiny_bundle, threads=1) as one, runtime.load(tiny_bundle) as two:
        first = one.render(image, image_size=24, projected=True)
        np.testing.assert_array_equal(first, two.render(image, image_size=24, projected=True))
        np.testing.assert_array_equal(first, two.render([image, image], image_size=24, projected=True)[1])
        made = two.reconstruct(image)
        made.render(Camera.orbit(50), 30, projected=True)
        np.testing.assert_array_equal(made.render(image_size=24, projected=True).to_uint8(), first)
        assert np.abs(made.render(image_size=24).to_uint8().astype(int) - first).max() > 10


def test_a_scene_without_an_image_says_so(tiny_runtime):
    triplane = np.zeros((3, 8, 32, 32), np.float32)
    with pytest.raises(runtime.OptionError, match="no input image to project"):
        tiny_runtime.scene(triplane).render(image_size=8, projected=True)

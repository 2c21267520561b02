"""The frame, the canonical camera, OpenCV's axes, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime
from runtime import Camera

angles = st.floats(-360, 360)
elevations = st.floats(-89, 89)


def test_the_canonical_camera_is_in_front_and_above():
    camera = Camera.orbit()
    assert camera.fov == 40
    assert np.linalg.norm(camera.position) == pytest.approx(3)
    assert camera.position[0] == pytest.approx(0)
    assert camera.position[1] == pytest.approx(3 * np.sin(np.radians(20)))
    assert camera.position[2] > 0
    np.testing.assert_allclose(camera.forward, -camera.position / 3, atol=1e-12)


def test_azimuth_grows_from_z_towards_x():
    np.testing.assert_allclose(Camera.orbit(90, 0).position, [3, 0, 0], atol=1e-12)
    # Seen from +x, what is in front (+z) is on the left.
    assert Camera.orbit(90, 0).project([0, 0, 0.5])[0] < 0


def test_projection_puts_right_right_and_up_up():
    camera = Camera.orbit(0, 0)
    np.testing.assert_allclose(camera.project([0, 0, 0]), [0, 0], atol=1e-12)
    x, y = camera.project([0.5, 0.25, 0])
    scale = 3 * np.tan(np.radians(20))
    assert (x, y) == (pytest.approx(0.5 / scale), pytest.approx(-0.25 / scale))


@given(angles, elevations, st.floats(0.5, 10))
def test_opencv_poses_round_trip(azimuth, elevation, distance):
    camera = Camera.orbit(azimuth, elevation, distance)
    np.testing.assert_allclose(Camera.from_opencv(camera.to_opencv()).pose, camera.pose, atol=1e-12)


def test_opencv_cameras_look_along_their_own_z():
    camera = Camera.orbit(30, 10)
    np.testing.assert_allclose(camera.to_opencv()[:3, 2], camera.forward)
    np.testing.assert_allclose(camera.to_opencv()[:3, 1], -camera.pose[:3, 1])


SINGULAR, MIRROR, SCALED, NAN, PROJECTIVE = (np.eye(4) for _ in range(5))
SINGULAR[0, 0] = 0
MIRROR[0, 0] = -1
SCALED[:3, :3] *= 2
NAN[1, 3] = np.nan
PROJECTIVE[3, 0] = 1


@pytest.mark.parametrize(
    ("pose", "reason"),
    [(SINGULAR, "singular"), (MIRROR, "mirrors"), (SCALED, "no rotation"), (NAN, "NaN"), (PROJECTIVE, "last row"),
     (np.eye(3), "4x4"), ("pose", "numbers")],
)  # fmt: skip
def test_what_is_no_rigid_pose_is_refused(pose, reason):
    with pytest.raises(runtime.CameraError, match=reason):
        Camera(pose)


@pytest.mark.parametrize("fov", [0, 180, -10, np.nan, "wide"])
def test_impossible_fields_of_view_are_refused(fov):
    with pytest.raises(runtime.CameraError, match="field of view"):
        Camera(np.eye(4), fov)


@pytest.mark.parametrize("arguments", [(np.nan,), (0, 91), (0, 0, 0), (0, 0, -1), ("a",), (None,)])
def test_impossible_orbits_are_refused(arguments):
    with pytest.raises(runtime.CameraError, match="orbits"):
        Camera.orbit(*arguments)


def test_a_camera_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        Camera.orbit().pose[0, 0] = 2

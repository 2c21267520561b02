"""Posed views on disk: both layouts, conventions in both directions with an asymmetric object, and bad data."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model.training.data.posed import DataError, PosedViews, object_folders, read_views, write_transforms
from model.training.dataset import app, procedural_views
from runtime import Camera

POINT = np.array([0.5, 0.3, -0.2])


def spot(camera, size=65):
    """A picture with one opaque spot where the camera sees POINT."""
    picture = np.zeros((size, size, 4), np.uint8)
    column, row = ((camera.project(POINT) + 1) / 2 * size).astype(int)
    picture[row, column] = 255
    return picture


def seen(views):
    """Picture coordinates in [-1, 1] of the spot in every view."""
    size = views.rgba.shape[1]
    spots = [np.argwhere(picture[..., 3] > 0)[0][::-1] for picture in views.rgba]
    return (np.array(spots) + 0.5) / size * 2 - 1


@pytest.fixture
def views():
    cameras = tuple(Camera.orbit(azimuth, elevation) for azimuth, elevation in ((0, 20), (100, -10), (250, 60)))
    return PosedViews(np.stack([spot(camera) for camera in cameras]), cameras)


def test_what_is_written_is_read_again(views, tmp_path):
    write_transforms(tmp_path / "a", views)
    again = read_views(tmp_path / "a")
    np.testing.assert_array_equal(again.rgba, views.rgba)
    for ours, theirs in zip(again.cameras, views.cameras, strict=True):
        np.testing.assert_allclose(ours.pose, theirs.pose, atol=1e-12)
        assert ours.fov == pytest.approx(theirs.fov)


def test_the_file_is_in_blenders_frame(views, tmp_path):
    write_transforms(tmp_path, views)
    description = json.loads((tmp_path / "transforms.json").read_text())
    assert description["camera_angle_x"] == pytest.approx(math.radians(40))
    point = np.array([POINT[0], -POINT[2], POINT[1]])  # z up: our height is their z, our front is their -y
    for frame, expected in zip(description["frames"], seen(views), strict=True):
        pose = np.array(frame["transform_matrix"])
        x, y, z = (point - pose[:3, 3]) @ pose[:3, :3]
        focal = 1 / math.tan(description["camera_angle_x"] / 2)
        np.testing.assert_allclose([focal * x / -z, -focal * y / -z], expected, atol=0.04)
    front = np.array(description["frames"][0]["transform_matrix"])[:3, 3]
    assert front[1] < 0
    assert front[2] > 0


def test_a_blender_file_is_read_into_our_frame(views, tmp_path):
    write_transforms(tmp_path, views)
    again = read_views(tmp_path)
    for camera, expected in zip(again.cameras, seen(again), strict=True):
        np.testing.assert_allclose(camera.project(POINT), expected, atol=0.04)


def test_the_srn_layout_is_read_into_our_frame(views, tmp_path):
    (tmp_path / "rgb").mkdir()
    (tmp_path / "pose").mkdir()
    focal = 65 / 2 / math.tan(math.radians(20))
    (tmp_path / "intrinsics.txt").write_text(f"{focal} 32.5 32.5 0.\n0. 0. 0.\n1.\n65 65\n")
    to_z_up = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    for index, (picture, camera) in enumerate(zip(views.rgba, views.cameras, strict=True)):
        Image.fromarray(picture).save(tmp_path / "rgb" / f"{index:06d}.png")
        np.savetxt(tmp_path / "pose" / f"{index:06d}.txt", (to_z_up @ camera.to_opencv()).reshape(1, 16))
    again = read_views(tmp_path)
    for camera, original, expected in zip(again.cameras, views.cameras, seen(again), strict=True):
        assert camera.fov == pytest.approx(40)
        np.testing.assert_allclose(camera.pose, original.pose, atol=1e-9)
        np.testing.assert_allclose(camera.project(POINT), expected, atol=0.04)
    np.testing.assert_allclose(read_views(tmp_path, 2.0).cameras[0].position, 2 * views.cameras[0].position)


def test_bad_data_is_named(views, tmp_path):
    with pytest.raises(DataError, match=r"no transforms\.json"):
        read_views(tmp_path)
    with pytest.raises(DataError, match="holds no object"):
        object_folders(tmp_path)
    write_transforms(tmp_path / "a", views)
    (tmp_path / "a" / "r_001.png").unlink()
    with pytest.raises(DataError, match=r"r_001\.png"):
        read_views(tmp_path / "a")
    (tmp_path / "a" / "transforms.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_views(tmp_path / "a")
    write_transforms(tmp_path / "b", views)
    Image.new("RGBA", (64, 64)).save(tmp_path / "b" / "r_000.png")
    with pytest.raises(DataError, match=r"of one size, not of \[64, 65\] pixels"):
        read_views(tmp_path / "b")
    with pytest.raises(DataError, match="one field of view"):
        write_transforms(tmp_path / "c", PosedViews(views.rgba[:2], (Camera.orbit(), Camera.orbit(fov=30))))


def test_the_commands_make_a_data_set_and_show_it(tmp_path):
    runner = CliRunner()
    made = runner.invoke(
        app, ["make", "--out", str(tmp_path / "set"), "--objects", "2", "--views", "3", "--size", "32"]
    )
    assert made.exit_code == 0, made.output
    folders = object_folders(tmp_path / "set")
    assert len(folders) == 2
    again, expected = read_views(folders[1]), procedural_views(1, 3, 32)
    np.testing.assert_array_equal(again.rgba, expected.rgba)
    np.testing.assert_allclose(again.cameras[2].pose, expected.cameras[2].pose, atol=1e-12)
    shown = runner.invoke(app, ["sheet", str(tmp_path / "set"), "--out", str(tmp_path / "s.png"), "--columns", "3"])
    assert shown.exit_code == 0, shown.output
    assert Image.open(tmp_path / "s.png").size == (384, 256)
    missing = runner.invoke(app, ["sheet", str(tmp_path / "nowhere")])
    assert missing.exit_code == 1

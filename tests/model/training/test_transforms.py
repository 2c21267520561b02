"""`transforms.json` and opaque views as other people write them: read rightly, or refused by name."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from model.training.data.posed import find_views, object_folders, read_views, without_background
from model.training.data.transforms import DataError
from runtime.geometry.cameras import Camera

POSE = [[1, 0, 0, 0], [0, 0, -1, -3], [0, 1, 0, 0], [0, 0, 0, 1]]  # Blender's front: at y = -3, looking along +y
FOV = 40.0


def write(folder, description, names=("r_0.png",), size=(32, 32), file="transforms.json", encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGBA", size)
        picture.paste((200, 10, 10, 255), (10, 10, 20, 20))
        picture.convert("RGB" if path.suffix.lower() in (".jpg", ".jpeg") else "RGBA").save(path)
    (folder / file).write_text(json.dumps(description), encoding=encoding)
    return folder


def frames(*names, **more):
    return [{"file_path": name, "transform_matrix": POSE, **more} for name in names]


ANGLE = {"camera_angle_x": math.radians(FOV)}
FOCAL = 16 / math.tan(math.radians(FOV) / 2)


@pytest.mark.parametrize(
    ("description", "names"),
    [
        (ANGLE | {"frames": frames("./r_0")}, ["r_0.png"]),
        (ANGLE | {"frames": frames("r_0.png")}, ["r_0.png"]),
        (ANGLE | {"frames": frames(".\\images\\r_0.png")}, ["images/r_0.png"]),
        (ANGLE | {"frames": frames("images/r_0.jpg")}, ["images/r_0.jpg"]),
        (ANGLE | {"frames": frames("r_0.png")}, ["r_0.PNG"]),
        (ANGLE | {"frames": frames("R_0")}, ["r_0.png"]),
        (ANGLE | {"frames": frames("view.0")}, ["view.0.png"]),
        ({"fl_x": FOCAL, "w": 32, "h": 32, "frames": frames("r_0.png")}, ["r_0.png"]),
        ({"frames": frames("r_0.png", fl_x=FOCAL, fl_y=FOCAL, w=32, h=32, cx=16, cy=16)}, ["r_0.png"]),
        ({"camera_angle_y": math.radians(FOV), "frames": frames("r_0.png")}, ["r_0.png"]),
        (ANGLE | {"camera_model": "OPENCV", "k1": 0.0, "p2": 0, "frames": frames("r_0.png")}, ["r_0.png"]),
        (ANGLE | {"frames": [{"file_path": "r_0", "transform_matrix": POSE[:3]}]}, ["r_0.png"]),
    ],
    ids=[
        "Blender", "with ending", "back slashes", "JPEG", "other case of the ending", "other case", "a dot",
        "focal length", "a frame's own", "vertical angle", "OpenCV without distortion", "3x4",
    ],
)  # fmt: skip
def test_what_others_write_is_read(tmp_path, description, names):
    files = find_views(write(tmp_path / "a", description, names))
    assert files.cameras[0].fov == pytest.approx(FOV)
    np.testing.assert_allclose(files.cameras[0].position, [0, 0, 3], atol=1e-9)
    assert files.rgba(0).shape == (32, 32, 4)


def test_a_byte_order_mark_is_skipped(tmp_path):
    write(tmp_path / "a", ANGLE | {"frames": frames("r_0")}, encoding="utf-8-sig")
    assert len(find_views(tmp_path / "a").cameras) == 1


def test_the_splits_of_the_download_are_one_object(tmp_path):
    folder = tmp_path / "lego"
    for split in ("train", "val", "test"):
        write(
            folder, ANGLE | {"frames": frames(f"./{split}/r_0")}, [f"{split}/r_0.png"], file=f"transforms_{split}.json"
        )
    assert object_folders(tmp_path) == [folder]
    assert [path.parent.name for path in find_views(folder).pictures] == ["train", "val", "test"]


@pytest.mark.parametrize(("size", "known"), [((48, 32), "x"), ((32, 48), "y"), ((48, 32), "fl"), ((47, 32), "fl")])
def test_oblong_views_are_padded_and_keep_their_field_of_view(tmp_path, size, known):
    width, height = size
    focal = max(size) / 2 / math.tan(math.radians(FOV) / 2)
    said = {
        "x": {"camera_angle_x": 2 * math.atan(width / 2 / focal)},
        "y": {"camera_angle_y": 2 * math.atan(height / 2 / focal)},
        "fl": {"fl_x": focal},
    }[known]
    description = said | {"w": width, "h": height, "frames": frames("r_0")}
    views = read_views(write(tmp_path / "a", description, size=size))
    assert views.cameras[0].fov == pytest.approx(FOV)
    side = views.rgba.shape[1]
    assert views.rgba.shape[1:3] == (side, side)
    assert side == max(size)
    rows, columns = np.nonzero(views.rgba[0, ..., 3])
    assert (rows[0], columns[0]) == (10 + (side - height) // 2, 10 + (side - width) // 2)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"k1": -0.03}, "lens distortion.*k1"),
        ({"p1": 0.001}, "lens distortion.*p1"),
        ({"camera_model": "OPENCV_FISHEYE"}, "camera model OPENCV_FISHEYE"),
        ({"w": 32, "h": 32, "cx": 20, "cy": 16}, "cx = 20.*principal point"),
        ({"fl_x": 40, "fl_y": 60, "w": 32, "h": 32}, "pixels must be square"),
    ],
)
@pytest.mark.parametrize("where", ["root", "frame"])
def test_what_no_pinhole_has_is_refused_by_name(tmp_path, more, said, where):
    root, frame = (more, {}) if where == "root" else ({}, more)
    with pytest.raises(DataError, match=said):
        find_views(write(tmp_path / "a", ANGLE | root | {"frames": frames("r_0", **frame)}))


def test_differing_fields_of_view_and_none_are_refused(tmp_path):
    two = [*frames("r_0", camera_angle_x=0.5), *frames("r_0", camera_angle_x=0.7)]
    with pytest.raises(DataError, match="fields of view from"):
        find_views(write(tmp_path / "a", {"frames": two}))
    with pytest.raises(DataError, match="gives no field of view"):
        find_views(write(tmp_path / "b", {"frames": frames("r_0")}))
    write(tmp_path / "c", ANGLE | {"frames": frames("r_0")}, file="transforms_train.json")
    write(tmp_path / "c", {"camera_angle_x": 1.0, "frames": frames("r_0")}, file="transforms_test.json")
    with pytest.raises(DataError, match="another field of view"):
        find_views(tmp_path / "c")


def test_what_is_not_used_is_said(tmp_path):
    folder = write(tmp_path / "a", ANGLE | {"applied_scale": 2.0, "frames": frames("r_0", mask_path="m.png")})
    with pytest.warns(UserWarning, match="'applied_scale', 'mask_path', which is not used"):
        find_views(folder)


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"frames": 3}', '{"frames": [3]}', '{"frames": [{}], "w": "x"}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(DataError, match=r"transforms\.json"):
        find_views(tmp_path)


def opaque(background=(255, 255, 255), noise=0):
    rng = np.random.default_rng(0)
    image = np.full((40, 40, 4), 255, np.uint8)
    image[..., :3] = np.clip(np.array(background) + rng.integers(-noise, noise + 1, (40, 40, 3)), 0, 255)
    image[10:30, 10:30, :3] = (30, 90, 160)
    image[18:22, 18:22, :3] = background  # a hole
    return image


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (120, 130, 140)])
@pytest.mark.parametrize("noise", [0, 3])
def test_opaque_views_lose_their_even_background(tmp_path, background, noise):
    found = without_background(opaque(background, noise), tmp_path)[..., 3] > 0
    wanted = np.zeros((40, 40), bool)
    wanted[10:30, 10:30] = True
    wanted[18:22, 18:22] = False
    np.testing.assert_array_equal(found, wanted)


def test_opaque_views_without_an_even_border_are_refused(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 4), np.uint8)
    image[..., 3] = 255
    with pytest.raises(DataError, match="its border is not of one colour"):
        without_background(image, tmp_path / "view.png")


def test_views_with_transparency_stay_as_they_are(tmp_path):
    image = opaque()
    image[0, 0, 3] = 0
    assert without_background(image, tmp_path) is image


def test_shapenet_srn_as_it_is_distributed_has_a_silhouette(tmp_path):
    folder = tmp_path / "car"
    for name in ("rgb", "pose"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(opaque()[..., :3]).save(folder / "rgb" / "000000.png")
    np.savetxt(folder / "pose" / "000000.txt", (Camera.orbit().pose @ np.diag([1, -1, -1, 1])).reshape(1, 16))
    (folder / "intrinsics.txt").write_text("43.9 20 20 0\n0 0 0\n1\n40 40\n")
    assert (read_views(folder).rgba[0, ..., 3] > 0).sum() == 20 * 20 - 4 * 4

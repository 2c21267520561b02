"""Mesh files to training data: geometry and colours against exact solids, and what is left out by name."""

import csv

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from typer.testing import CliRunner

from model.training.data.drawing import SolidCaster, draw_orthographic, draw_view, place_of
from model.training.data.from_meshes import is_validation
from model.training.data.meshes import MeshCaster, MeshError, moved, read_mesh
from model.training.data.posed import find_views, object_folders
from model.training.dataset import app
from model.training.procedural.families import yaw
from model.training.procedural.packing import Solid, pack
from model.training.procedural.solids import BOX
from runtime import Camera
from runtime.geometry.triplane import PLANE_AXES

RED = np.array([0.8, 0.3, 0.1])
HALF = np.array([0.3, 0.45, 0.2])


def box(half=HALF, centre=(0, 0, 0)):
    mesh = trimesh.creation.box(2 * np.asarray(half))
    mesh.apply_translation(centre)
    return mesh


def linear(srgb):
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def coloured(mesh, srgb=RED):
    """A material of one base colour, as glTF has it: linear."""
    mesh.visual = trimesh.visual.TextureVisuals(material=PBRMaterial(baseColorFactor=[*linear(np.asarray(srgb)), 1.0]))
    return mesh


def saved(mesh, path):
    mesh.export(path)
    return path


@pytest.fixture
def framed(tmp_path):
    """A turned box as a mesh, and as the exact solid that it must look like."""
    caster = MeshCaster(read_mesh(saved(coloured(box()), tmp_path / "box.glb")), turn=35.0)
    corners = caster._corners.reshape(-1, 3)
    scale = np.ptp(corners[:, 1]) / (2 * HALF[1])
    centre = (corners.min(0) + corners.max(0)) / 2
    return caster, SolidCaster(pack([[Solid(BOX, centre, HALF * scale, RED, yaw(35.0))]]))


def test_a_mesh_is_drawn_as_the_exact_solid_is(framed):
    for camera in (Camera.orbit(), Camera.orbit(130, 50)):
        (rgba, depth), (exact, exact_depth) = (draw_view(caster, camera, 96) for caster in framed)
        both = (rgba[..., 3] > 0) & (exact[..., 3] > 0)
        assert (rgba[..., 3] != exact[..., 3]).mean() < 1e-3
        np.testing.assert_allclose(rgba[both], exact[both], atol=0.012)
        np.testing.assert_allclose(depth[both], exact_depth[both], atol=1e-4)


def test_orthographic_views_lie_as_the_planes_do(framed):
    caster, solid = framed
    views = draw_orthographic(caster, 64)
    exact = draw_orthographic(solid, 64)
    assert (views.depth > 0).mean() == pytest.approx((exact.depth > 0).mean(), abs=2e-3)
    middles = (np.arange(64) + 0.5) / 32 - 1
    for plane, (column, row, sign) in enumerate(PLANE_AXES):
        for side in (0, 1):
            rows, columns = np.nonzero(views.depth[plane, side])
            points = np.empty((len(rows), 3))
            points[:, column], points[:, row] = middles[columns], sign * middles[rows]
            points[:, 3 - column - row] = place_of(views.depth[plane, side])[rows, columns]
            lowest, highest = caster._corners.reshape(-1, 3).min(0), caster._corners.reshape(-1, 3).max(0)
            assert (points >= lowest - 0.04).all()
            assert (points <= highest + 0.04).all()
            seen = points[:, 3 - column - row].mean()
            assert (seen > (lowest + highest)[3 - column - row] / 2) == (side == 0), "the positive end comes first"


def test_textures_vertex_colours_and_materials_have_their_colours(tmp_path):
    textured = trimesh.creation.icosphere(3)
    u = 0.25 + 0.5 * (textured.vertices[:, 0] > 0)
    picture = Image.fromarray(np.array([[[200, 40, 40], [40, 40, 200]]], np.uint8))
    textured.visual = trimesh.visual.TextureVisuals(
        uv=np.stack([u, np.full_like(u, 0.5)], 1), material=PBRMaterial(baseColorTexture=picture)
    )
    by_vertex = trimesh.creation.icosphere(3)
    by_vertex.visual.vertex_colors = np.where(by_vertex.vertices[:, :1] > 0, (40, 40, 200, 255), (200, 40, 40, 255))
    for mesh, name in ((textured, "a.glb"), (by_vertex, "b.ply")):
        rgba, _ = draw_view(MeshCaster(read_mesh(saved(mesh, tmp_path / name)), 0.0), Camera.orbit(0, 0), 64)
        left, right = rgba[32, 14], rgba[32, 50]
        assert left[0] > 2.5 * left[2], name
        assert right[2] > 2.5 * right[0], name
        assert max(left[0], right[2]) <= 200 / 255 + 0.01


def test_a_scene_of_several_moved_parts_is_read_whole(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(
        coloured(box((0.2, 0.2, 0.2))), transform=trimesh.transformations.translation_matrix([-100, 0, 0])
    )
    scene.add_geometry(
        coloured(box((0.2, 0.2, 0.2)), (0.1, 0.1, 0.9)),
        transform=trimesh.transformations.translation_matrix([100, 0, 0]) @ trimesh.transformations.scale_matrix(300),
    )
    mesh = read_mesh(saved(scene, tmp_path / "two.glb"))
    assert len(mesh.parts) == 2
    assert np.ptp(mesh.vertices[:, 0]) == pytest.approx(100.2 + 160, rel=1e-3)
    rgba, _ = draw_view(MeshCaster(mesh, 0.0), Camera.orbit(0, 10), 64)
    assert rgba[32, 44, 2] > rgba[32, 44, 0]


@pytest.mark.parametrize("sides", [(1.25, 0.8, 1.1), (-0.9, 1.2, 1.0)])
def test_a_stretched_or_mirrored_mesh_is_drawn_as_such_solids_are(tmp_path, sides):
    parts = [((0.1, 0.5, 0.2), (-0.3, 0.0, 0.0), RED), ((0.3, 0.1, 0.2), (0.1, -0.4, 0.2), RED[::-1])]
    scene = trimesh.Scene([coloured(box(half, centre), colour) for half, centre, colour in parts])
    caster = MeshCaster(moved(read_mesh(saved(scene, tmp_path / "two.glb")), np.diag(sides)), 0.0)
    stretch = np.array(sides)
    ends = np.array([[stretch * (np.array(c) + s * np.array(h)) for s in (-1, 1)] for h, c, _ in parts]).reshape(-1, 3)
    low, high = ends.min(0), ends.max(0)
    corners = caster._corners.reshape(-1, 3)
    scale = np.ptp(corners[:, 1]) / (high - low)[1]
    shift = corners.min(0) - scale * low
    solids = [Solid(BOX, scale * stretch * c + shift, np.abs(scale * stretch * h), k, yaw(0.0)) for h, c, k in parts]
    for camera in (Camera.orbit(), Camera.orbit(130, 50)):
        (rgba, _), (exact, _) = (draw_view(each, camera, 96) for each in (caster, SolidCaster(pack([solids]))))
        both = (rgba[..., 3] > 0) & (exact[..., 3] > 0)
        assert (rgba[..., 3] != exact[..., 3]).mean() < 2e-3
        np.testing.assert_allclose(rgba[both], exact[both], atol=0.012)


def test_variants_but_the_first_have_proportions_of_their_own(tmp_path):
    (source := tmp_path / "meshes").mkdir()
    saved(coloured(box()), source / "box.glb")
    arguments = ["from-meshes", str(source), "--out", str(tmp_path / "out"), "--variants", "3", "--views", "2"]
    assert CliRunner().invoke(app, [*arguments, "--size", "32", "--planes", "128"]).exit_code == 0
    shares = []
    for folder in sorted(object_folders(tmp_path / "out")):
        mask = find_views(folder).six_views().rgba[..., 3] > 0
        # The ground plan over the height squared: neither the turn nor the framing changes it.
        shares.append(mask[1, 0].sum() / np.ptp(np.nonzero(mask[0, 0])[0]) ** 2)
    assert shares[0] == pytest.approx(HALF[0] * HALF[2] / HALF[1] ** 2, rel=0.05)
    assert all(abs(share / shares[0] - 1) > 0.1 for share in shares[1:])


def test_up_may_be_z(tmp_path):
    path = saved(box((0.2, 0.3, 0.9)), tmp_path / "tall.stl")
    assert np.ptp(read_mesh(path, "z").vertices[:, 1]) == pytest.approx(1.8)
    assert np.ptp(read_mesh(path, "y").vertices[:, 1]) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("flat.glb", lambda: box((1, 0.01, 1)), "flat"),
        ("broken.glb", lambda: b"glTF and then nothing", "damaged"),
        ("nothing.stl", lambda: b"", "empty|damaged"),
        ("huge.obj", lambda: b"#" * (65 << 20), "too large"),
    ],
)
def test_what_is_not_drawn_is_said(name, content, reason, tmp_path):
    made = content()
    if isinstance(made, bytes):
        (tmp_path / name).write_bytes(made)
    else:
        made.export(tmp_path / name)
    with pytest.raises(MeshError, match=reason):
        read_mesh(tmp_path / name)


def test_the_command_draws_a_folder_and_reports_what_it_left_out(tmp_path):
    source, out = tmp_path / "meshes", tmp_path / "data"
    (source / "deep").mkdir(parents=True)
    saved(coloured(box()), source / "deep" / "box.glb")
    saved(box(), source / "plain.obj")
    saved(box((1, 0.001, 1)), source / "tile.ply")
    (source / "bad.gltf").write_text("{")
    arguments = ["from-meshes", str(source), "--out", str(out), "--variants", "2", "--views", "3"]
    arguments += ["--size", "48", "--planes", "32", "--workers", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "4 objects of 4 files" in done.output
    rows = {row["file"].rpartition("/")[2]: row for row in csv.DictReader((out / "report.csv").open())}
    assert rows["tile.ply"]["left_out"].startswith("flat")
    assert rows["bad.gltf"]["left_out"].startswith("damaged")
    assert rows["box.glb"]["folders"] == "2"
    assert Image.open(out / "sheet.png").size == (1280, 128)
    files = find_views(object_folders(out)[0])
    assert len(files.pictures) == len(files.depths) == 3
    views = files.six_views()
    assert views.rgba.shape == (3, 2, 32, 32, 4)
    assert ((views.depth > 0) == (views.rgba[..., 3] > 0)).all()
    again = CliRunner().invoke(app, [*arguments[:5], "3", *arguments[6:]])
    assert "6 objects of 4 files" in again.output
    otherwise = CliRunner().invoke(app, [*arguments[:-4], "--planes", "16"])
    assert otherwise.exit_code == 1
    assert "made with other planes" in otherwise.output
    nothing = CliRunner().invoke(app, ["from-meshes", str(out), "--out", str(out)])
    assert nothing.exit_code == 1
    assert "holds no mesh" in nothing.output


def test_variants_of_a_shape_are_kept_for_validation_together(tmp_path):
    names = [tmp_path / f"{word}_{colour}.glb" for word in map(str, range(400)) for colour in ("blue", "red")]
    chosen = [is_validation(name, 0.1) for name in names]
    assert chosen[::2] == chosen[1::2]
    assert 0.05 < np.mean(chosen) < 0.16

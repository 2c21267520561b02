"""Meshes: right place, size, winding and colour, read back from every format."""

import json

import numpy as np
import pytest
import trimesh

import runtime
from runtime.mesh import extract_mesh
from runtime.tasks import Tasks

SCALE = 20.0
CENTRE, HALF = np.array([0.2, -0.1, 0.3]), np.array([0.5, 0.3, 0.2])


def density_of(logit):
    return (SCALE * np.logaddexp(0, logit)).astype(np.float32)


def ellipsoid(points):
    """Red where x is above the centre, green where it is below; the logit falls by 8 in a scene unit."""
    local = (points - CENTRE) / HALF
    logit = 8 * HALF.min() * (1 - np.linalg.norm(local, axis=1))
    colour = np.where(local[:, :1] > 0, [0.8, 0.1, 0.1], [0.1, 0.6, 0.1])
    return colour.astype(np.float32), density_of(logit)


@pytest.fixture(scope="module")
def mesh():
    return extract_mesh(ellipsoid, 64, SCALE, Tasks(1 << 14))


@pytest.mark.parametrize("ending", ["glb", "ply", "obj"])
def test_a_mesh_reads_back_upright_in_scale_wound_outwards_and_coloured(mesh, ending, tmp_path):
    path = tmp_path / "deep" / f"thing.{ending}"
    mesh.save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    (read,) = trimesh.load_scene(path, process=False).geometry.values()
    np.testing.assert_allclose(read.bounds, [CENTRE - HALF, CENTRE + HALF], atol=0.01)
    assert read.is_watertight
    assert read.volume == pytest.approx(4 / 3 * np.pi * HALF.prod(), rel=0.02)
    # Beside a material trimesh keeps vertex colours as a plain attribute.
    stored = read.visual.vertex_attributes["color"] if ending == "glb" else read.visual.vertex_colors
    colours = np.asarray(stored)[:, :3] / 255
    for side, expected in ((1, [0.8, 0.1, 0.1]), (-1, [0.1, 0.6, 0.1])):
        tip = np.linalg.norm(read.vertices - (CENTRE + side * HALF * [1, 0, 0]), axis=1).argmin()
        found = colours[tip]
        if ending == "glb":  # glTF's vertex colours are linear
            found = np.where(found <= 0.0031308, 12.92 * found, 1.055 * found ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_glb_has_a_material_on_every_primitive(mesh, tmp_path):
    mesh.save(tmp_path / "thing.glb")
    raw = (tmp_path / "thing.glb").read_bytes()
    tree = json.loads(raw[20 : 20 + int.from_bytes(raw[12:16], "little")])
    assert tree["materials"]
    primitives = [primitive for each in tree["meshes"] for primitive in each["primitives"]]
    assert all(primitive["material"] == 0 and "COLOR_0" in primitive["attributes"] for primitive in primitives)


def test_the_surface_is_interpolated_between_samples(mesh):
    radius = np.linalg.norm((mesh.vertices - CENTRE) / HALF, axis=1)
    assert np.abs(radius - 1).max() < 0.02


def test_an_object_that_reaches_the_cube_is_closed_at_its_faces():
    slab = extract_mesh(
        lambda p: (np.full(p.shape, 0.5, np.float32), density_of(4 - 10 * np.abs(p[:, 1]))), 32, SCALE, Tasks(1 << 14)
    )
    read = trimesh.Trimesh(slab.vertices, slab.faces)
    assert read.volume == pytest.approx(2 * 2 * 0.8, rel=0.02)
    np.testing.assert_allclose(np.abs(read.bounds[:, [0, 2]]), 1)


def test_an_empty_object_and_bad_arguments_are_refused(tiny_runtime, pictures, mesh, tmp_path):
    with pytest.raises(runtime.OptionError, match="no surface"):
        extract_mesh(lambda p: (np.zeros(p.shape, np.float32), np.zeros(len(p), np.float32)), 16, SCALE, Tasks(1 << 14))
    scene = tiny_runtime.reconstruct(pictures[0])
    for resolution in (0, 7, 513, 2.5):
        with pytest.raises(runtime.OptionError, match="resolution"):
            scene.mesh(resolution)
    for name in ("thing.stl", "thing"):
        with pytest.raises(runtime.OptionError, match="cannot be written"):
            mesh.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_scene_is_cut_in_its_own_field(mesh):
    class Backend:
        workers, threads = None, 1

        def field(self, triplane):
            return self.query

        def query(self, points):
            return ellipsoid(points)

    cut = runtime.Scene(Backend(), np.zeros((3, 1, 2, 2), np.float32), 1 << 24, SCALE).mesh(64)
    np.testing.assert_array_equal(cut.vertices, mesh.vertices)
    np.testing.assert_array_equal(cut.faces, mesh.faces)
    np.testing.assert_array_equal(cut.colors, mesh.colors)

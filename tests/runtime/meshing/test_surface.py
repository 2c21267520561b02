"""Meshes: right place, size, winding and colour, read back from every format."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from skimage.measure import marching_cubes

import runtime
from runtime.meshing.mesh import vertex_normals
from runtime.meshing.surface import extract_mesh
from runtime.rendering.occupancy import OccupancyGrid, to_logit
from runtime.rendering.parallel import WorkerPool

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


PLANES = np.zeros((3, 1, 64, 64), np.float32)


def cut(field, resolution):
    pool = WorkerPool(1 << 14)
    return extract_mesh(
        field, OccupancyGrid.of(field, PLANES, SCALE, (0, 0, 0), pool), resolution, SCALE, pool, clean=False
    )


@pytest.fixture(scope="module")
def mesh():
    return cut(ellipsoid, 64)


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
    slab = cut(lambda p: (np.full(p.shape, 0.5, np.float32), density_of(4 - 10 * np.abs(p[:, 1]))), 32)
    read = trimesh.Trimesh(slab.vertices, slab.faces)
    assert read.volume == pytest.approx(2 * 2 * 0.8, rel=0.02)
    np.testing.assert_allclose(np.abs(read.bounds[:, [0, 2]]), 1)


def test_an_empty_object_and_bad_arguments_are_refused(tiny_runtime, pictures, mesh, tmp_path):
    with pytest.raises(runtime.OptionError, match="no surface"):
        cut(lambda p: (np.zeros(p.shape, np.float32), np.zeros(len(p), np.float32)), 16)
    scene = tiny_runtime.reconstruct(pictures[0])
    for resolution in (0, 7, 513, 2.5):
        with pytest.raises(runtime.OptionError, match="resolution"):
            scene.mesh(resolution)
    for name in ("thing.fbx", "thing"):
        with pytest.raises(runtime.OptionError, match="cannot be written"):
            mesh.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_scene_is_cut_in_its_own_field(mesh):
    class Backend:
        workers, threads = None, 1

        def field(self, triplane, key=None):
            return self.query

        def query(self, points):
            return ellipsoid(points)

    found = runtime.Scene(Backend(), PLANES, 1 << 24, SCALE, (0, 0, 0)).mesh(64, clean=False)
    np.testing.assert_array_equal(found.vertices, mesh.vertices)
    np.testing.assert_array_equal(found.faces, mesh.faces)
    np.testing.assert_array_equal(found.colors, mesh.colors)
    thicker = runtime.Scene(Backend(), PLANES, 1 << 24, SCALE, (0, 0, 0), surface_logit=-1.0).mesh(64, clean=False)
    # The logit falls by 1 where all half axes are longer by as much.
    grown = 1 + 1 / (8 * HALF.min())
    np.testing.assert_allclose(np.ptp(thicker.vertices, axis=0), 2 * HALF * grown, atol=0.02)
    assert trimesh.Trimesh(thicker.vertices, thicker.faces).is_watertight


def dense(field, resolution):
    """The surface by asking everywhere."""
    axis = np.linspace(-1, 1, resolution, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    logits = np.pad(to_logit(field(points)[1], SCALE).reshape((resolution,) * 3), 1, constant_values=-15.0)
    spacing = 2 / (resolution - 1)
    vertices, faces, _, _ = marching_cubes(logits, 0.0, spacing=(spacing,) * 3, gradient_direction="ascent")
    return np.clip(vertices - spacing - 1, -1, 1), faces


def thin_ring(points):
    """A ring thinner than a cell of the grid: the middles of the cells miss part of it."""
    around = np.hypot(np.hypot(points[:, 0], points[:, 2]) - 0.6, points[:, 1] - 0.01)
    return np.full(points.shape, 0.5, np.float32), density_of(60 * (0.03 - around))


@pytest.mark.parametrize("field", [ellipsoid, thin_ring], ids=["ellipsoid", "thin ring"])
@pytest.mark.parametrize("resolution", [40, 57, 96])
def test_the_surface_is_that_of_asking_everywhere_at_a_fraction_of_the_points(field, resolution):
    asked = []

    def counted(points):
        asked.append(len(points))
        return field(points)

    pool = WorkerPool(1 << 14)
    grid = OccupancyGrid.of(counted, PLANES, SCALE, (0, 0, 0), pool)
    looked = sum(asked)
    found = extract_mesh(counted, grid, resolution, SCALE, pool, clean=False)
    vertices, faces = dense(field, resolution)
    np.testing.assert_allclose(found.vertices, vertices, atol=1e-6)
    np.testing.assert_array_equal(found.faces, faces)
    assert sum(asked) - looked < resolution**3 / 4


def test_a_surface_through_a_trained_like_triplane_is_that_of_asking_everywhere(tiny_runtime):
    """Planes of noise: the surface is everywhere, as torn as it can be."""
    rng = np.random.default_rng(0)
    side = 2 * tiny_runtime.bundle.resolution
    scene = tiny_runtime.scene(rng.standard_normal((3, tiny_runtime.bundle.channels, side, side)).astype(np.float32))
    field = tiny_runtime.backend.field(scene.triplane)
    # The level at which this decoder has inside and outside.
    middle = to_logit(np.median(field(rng.uniform(-1, 1, (4000, 3)).astype(np.float32))[1]), SCALE)

    def shifted(points):
        colour, density = field(points)
        return colour, density_of(to_logit(density, SCALE) - middle)

    pool = WorkerPool(1 << 14)
    sensitivity = tiny_runtime.bundle.sensitivity
    grid = OccupancyGrid.of(shifted, scene.triplane, SCALE, sensitivity, pool)
    found = extract_mesh(shifted, grid, 48, SCALE, pool, clean=False)
    vertices, _ = dense(shifted, 48)
    assert len(found.vertices) == len(vertices)
    np.testing.assert_allclose(found.vertices, vertices, atol=1e-6)


def speckled(points):
    """A ball, and a crumb beside it; the logit ripples with the texels."""
    ball = 0.5 - np.linalg.norm(points, axis=1)
    crumb = 0.07 - np.linalg.norm(points - np.float32([0.8, 0, 0]), axis=1)
    logit = 20 * np.maximum(ball, crumb) + 0.15 * np.cos(64 * np.pi * points).sum(1)
    return np.full(points.shape, 0.5, np.float32), (SCALE * np.logaddexp(0, logit)).astype(np.float32)


def test_a_clean_mesh_has_no_crumbs_less_ripple_and_the_same_volume():
    import trimesh

    pool = WorkerPool(1 << 16)
    grid = OccupancyGrid.of(speckled, PLANES, SCALE, (0, 0, 0), pool)
    raw, clean = (extract_mesh(speckled, grid, 128, SCALE, pool, clean=on) for on in (False, True))
    before, after = (trimesh.Trimesh(m.vertices, m.faces, process=False) for m in (raw, clean))
    assert len(before.split()) == 2
    assert len(after.split()) == 1
    assert after.is_watertight
    assert after.is_winding_consistent
    assert after.volume == pytest.approx(max(part.volume for part in before.split()), rel=0.01)
    roughness = [np.linalg.norm(m.vertices[np.abs(m.vertices[:, 0]) < 0.6], axis=1).std() for m in (raw, clean)]
    assert roughness[1] < 0.8 * roughness[0]
    outward = (vertex_normals(clean.vertices, clean.faces) * clean.vertices).sum(1)
    assert (outward > 0).all()


def test_vertices_that_the_image_shows_take_its_colours():
    with runtime.load() as rt:
        scene = rt.reconstruct(Path(__file__).parents[3] / "examples" / "mug.png")
        plain, projected = scene.mesh(48), scene.mesh(48, projected=True)
    np.testing.assert_array_equal(plain.vertices, projected.vertices)
    changed = np.abs(projected.colors - plain.colors).max(1) > 0.02
    assert changed.any()
    # What changes faces the camera.
    facing = (vertex_normals(plain.vertices, plain.faces) * runtime.Camera.orbit().position).sum(1)
    assert facing[changed].min() > 0

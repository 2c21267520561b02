"""Charts that do not overlap, textures with the right colours in place, fewer faces, every format read back."""

import io
import json
import zipfile

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import runtime
from runtime.meshing.charts import PADDING, rasterised, unfold
from runtime.meshing.cleaning import decimated
from runtime.meshing.mesh import Mesh, vertex_normals
from runtime.meshing.texture import baked
from runtime.meshing.writing import files_of, split_at_seams


def of(shape):
    return shape.vertices.astype(np.float32), shape.faces.astype(np.int64)


def helicoid():
    """A closed winding ramp of three turns: all of its upper side is connected, and above itself."""
    angle = np.linspace(0, 6 * np.pi, 97)
    path = np.stack([np.cos(angle), angle / 12, np.sin(angle)], axis=1)
    radial = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
    ring = [path + 0.25 * r * radial + h * np.array([0, 0.05, 0]) for r, h in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    vertices = np.stack(ring, axis=1).reshape(-1, 3)
    faces = [
        corners
        for i in range(0, len(vertices) - 4, 4)
        for k in range(4)
        for a, b in [(i + k, i + (k + 1) % 4)]
        for corners in ((a, a + 4, b), (b, a + 4, b + 4))
    ]
    last = len(vertices) - 4
    faces += [(0, 1, 2), (0, 2, 3), (last, last + 2, last + 1), (last, last + 3, last + 2)]
    shape = trimesh.Trimesh(vertices * 0.6, faces, process=False)
    shape.fix_normals()
    return shape


SHAPES = {
    "box": lambda: trimesh.creation.box((0.5, 0.9, 1.3)).subdivide(),
    "ball": lambda: trimesh.creation.icosphere(4, 0.7),
    "ring": lambda: trimesh.creation.torus(0.6, 0.2),
    "ramp": helicoid,
}


@pytest.mark.parametrize("name", SHAPES)
def test_no_texel_belongs_to_two_places(name):
    vertices, faces = of(SHAPES[name]())
    size = 512
    corners = unfold(vertices, faces, size)
    assert corners.min() >= PADDING
    assert corners.max() <= size - PADDING
    face, texel, _ = rasterised(corners, size, margin=1e-2)
    assert len(np.unique(texel)) == len(texel)
    # Of a third at the least of the square something can be said.
    assert len(texel) > 0.3 * size * size
    # Each face has about its share: none is laid flat edge on.
    areas = trimesh.Trimesh(vertices, faces, process=False).area_faces
    sides = corners[:, 1:] - corners[:, :1]
    flat = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]) / 2
    assert (flat / areas).min() > 0.2 * (flat / areas).max()
    assert set(face) <= set(range(len(faces)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_rasterising_is_asking_every_texel(seed, size):
    """Against barycentric coordinates solved for every texel's middle."""
    corners = np.random.default_rng(seed).uniform(-3, size + 3, (3, 3, 2)).astype(np.float32)
    face, texel, shares = rasterised(corners, size)
    found = {(f, t) for f, t in zip(face.tolist(), texel.tolist(), strict=True)}
    rows, columns = np.divmod(np.arange(size * size), size)
    middles = np.stack([columns + 0.5, rows + 0.5, np.ones(size * size)])
    for number, triangle in enumerate(corners.astype(np.float64)):
        solved = np.linalg.solve(np.vstack([triangle.T, np.ones(3)]), middles)
        sure_in, maybe_in = (solved > 1e-3).all(axis=0), (solved > -1e-3).all(axis=0)
        mine = {t for f, t in found if f == number}
        assert set(np.flatnonzero(sure_in)) <= mine <= set(np.flatnonzero(maybe_in))
        of_mine = face == number
        np.testing.assert_allclose(shares[of_mine], solved.T[texel[of_mine]], atol=2e-3)


def position_colours(points, normals):
    return np.clip((points + 1) / 2, 0, 1)


@pytest.mark.parametrize("name", SHAPES)
def test_a_texture_has_at_every_place_the_colour_of_the_point(name):
    vertices, faces = of(SHAPES[name]())
    texture = baked(vertices, faces, vertex_normals(vertices, faces), 512, position_colours)
    rng = np.random.default_rng(0)
    face = rng.integers(len(faces), size=4000)
    shares = rng.dirichlet((1, 1, 1), 4000)
    points = np.einsum("kc,kcd->kd", shares, vertices[faces[face]])
    uv = np.einsum("kc,kcd->kd", shares, texture.uv[face])
    # Bilinear, as viewers read it.
    x, y = uv[:, 0] * 512 - 0.5, (1 - uv[:, 1]) * 512 - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    read = sum(
        (1 - np.abs(x - left - i))[:, None]
        * (1 - np.abs(y - top - j))[:, None]
        * texture.image[np.clip(top + j, 0, 511), np.clip(left + i, 0, 511)]
        for i in (0, 1)
        for j in (0, 1)
    )
    wrong = np.abs(read / 255 - position_colours(points, None)).max(axis=1)
    assert np.quantile(wrong, 0.99) < 0.01
    # Where a chart was taken apart, a texel's width beside the cut is the other part's.
    assert wrong.max() < (0.2 if name == "ramp" else 0.04)


def test_charts_without_room_are_refused():
    vertices, faces = of(trimesh.creation.icosphere(4, 0.7))
    with pytest.raises(runtime.OptionError, match="no room"):
        unfold(vertices, faces, 8)


def thin():
    """A sheet so thin that merging edges presses its sides onto one another."""
    vertices, faces = of(trimesh.creation.icosphere(5, 0.7))
    return vertices * np.float32([1, 1, 0.004]), faces


@pytest.mark.parametrize("count", [200, 1500])
def test_sides_that_are_pressed_together_stay_closed(count):
    shape = trimesh.Trimesh(*decimated(*thin(), count), process=False)
    assert shape.is_watertight
    assert shape.is_winding_consistent


def test_fewer_faces_keep_the_shape_closed():
    vertices, faces = of(trimesh.creation.torus(0.6, 0.2, major_sections=96, minor_sections=48))
    fewer, triangles = decimated(vertices, faces, 1500)
    before, after = (trimesh.Trimesh(*parts, process=False) for parts in ((vertices, faces), (fewer, triangles)))
    assert 0 < len(triangles) <= 1500
    assert after.is_watertight
    assert after.is_winding_consistent
    assert after.volume == pytest.approx(before.volume, rel=0.01)
    assert np.isfinite(fewer).all()
    same = decimated(vertices, faces, 10**6)
    assert same[0] is vertices
    assert same[1] is faces


@pytest.fixture(scope="module")
def ring():
    vertices, faces = of(trimesh.creation.torus(0.6, 0.2))
    normals = vertex_normals(vertices, faces)
    colours = position_colours(vertices, normals)
    return Mesh(vertices, faces, colours, baked(vertices, faces, normals, 256, position_colours))


def texture_of(geometry):
    material = geometry.visual.material
    return material.baseColorTexture if hasattr(material, "baseColorTexture") else material.image


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_a_textured_file_is_read_by_trimesh(ring, ending, tmp_path):
    path = tmp_path / f"ring.{ending}"
    assert (
        ring.save(path)
        == files_of(path, textured=True)
        == sorted(tmp_path.iterdir(), key=lambda p: p != path)[:1]
        + ([tmp_path / "ring.mtl", tmp_path / "ring_texture.png"] if ending == "obj" else [])
    )
    (read,) = trimesh.load_scene(path, process=False).geometry.values()
    vertex, *_ = split_at_seams(ring)
    np.testing.assert_allclose(read.bounds, [ring.vertices.min(0), ring.vertices.max(0)], atol=1e-5)
    assert read.volume == pytest.approx(trimesh.Trimesh(ring.vertices, ring.faces).volume, rel=1e-4)
    assert len(read.faces) == len(ring.faces)
    image = np.asarray(texture_of(read).convert("RGB"))
    np.testing.assert_array_equal(image, ring.texture.image)
    column, row = (read.visual.uv[:, 0] * 256).astype(int), ((1 - read.visual.uv[:, 1]) * 256).astype(int)
    wrong = np.abs(image[row, column] / 255 - position_colours(read.vertices, None)).max(axis=1)
    assert np.quantile(wrong, 0.99) < 0.03
    cosine = (read.vertex_normals * ring.normals[vertex]).sum(1) if ending == "glb" else np.ones(1)
    assert cosine.min() > 0.99


def test_a_glb_holds_normals_and_one_opaque_image(ring, tmp_path):
    ring.save(tmp_path / "ring.glb")
    raw = (tmp_path / "ring.glb").read_bytes()
    tree = json.loads(raw[20 : 20 + int.from_bytes(raw[12:16], "little")])
    (primitive,) = tree["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= set(primitive["attributes"])
    assert "COLOR_0" not in primitive["attributes"], "it would be multiplied with the texture"
    (material,) = tree["materials"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert [image["mimeType"] for image in tree["images"]] == ["image/png"]


@pytest.mark.parametrize("textured", [True, False])
def test_usdz_passes_openusds_own_checks(ring, textured, tmp_path):
    pytest.importorskip("pxr")
    from dataclasses import replace

    from pxr import Usd, UsdGeom, UsdShade, UsdValidation

    path = tmp_path / "ring.usdz"
    (ring if textured else replace(ring, texture=None)).save(path)
    stage = Usd.Stage.Open(str(path))
    shape = UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))
    np.testing.assert_allclose(np.array(shape.GetPointsAttr().Get()), ring.vertices)
    np.testing.assert_array_equal(np.array(shape.GetFaceVertexIndicesAttr().Get()), ring.faces.ravel())
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdShade.MaterialBindingAPI(shape.GetPrim()).ComputeBoundMaterial()[0]
    registry = UsdValidation.ValidationRegistry()
    names = [metadata.name for metadata in registry.GetAllValidatorMetadata()]
    context = UsdValidation.ValidationContext([registry.GetOrLoadValidatorByName(name) for name in names])
    assert len(names) > 10
    assert [error.GetMessage() for error in context.Validate(stage)] == []
    if textured:
        with zipfile.ZipFile(path) as packed:
            (name,) = [name for name in packed.namelist() if name.endswith(".png")]
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(packed.read(name)))), ring.texture.image)


@pytest.mark.parametrize("ending", ["glb", "obj", "ply", "stl", "usdz"])
def test_every_format_carries_the_programs_mark(ring, ending, tmp_path):
    from runtime.outputs import is_ours

    if ending == "usdz":
        pytest.importorskip("pxr")
    for path in ring.save(tmp_path / f"ring.{ending}"):
        assert is_ours(path), path


def test_a_placed_mesh_has_the_size_and_the_ground_asked_for(ring):
    placed = ring.placed(scale=2.5, ground=True)
    assert np.ptp(placed.vertices, axis=0).max() == pytest.approx(2.5)
    assert placed.vertices[:, 1].min() == pytest.approx(0, abs=1e-6)
    upright = ring.placed(ground=True, up="z")
    np.testing.assert_allclose(upright.vertices[:, 2], ring.vertices[:, 1] - ring.vertices[:, 1].min(), atol=1e-6)
    volumes = [trimesh.Trimesh(m.vertices, m.faces, process=False).volume for m in (ring, upright)]
    assert volumes[1] == pytest.approx(volumes[0], rel=1e-4), "turned, not mirrored"
    front = ring.vertices[:, 2].argmax()
    assert upright.vertices[front, 1] == upright.vertices[:, 1].min(), "the front looks along -y"
    for wrong in ({"scale": 0}, {"scale": float("nan")}, {"scale": True}, {"up": "x"}):
        with pytest.raises(runtime.OptionError):
            ring.placed(**wrong)


def test_a_photograph_becomes_a_textured_mesh_with_the_images_own_pixels():
    from pathlib import Path

    with runtime.load() as rt:
        scene = rt.reconstruct(Path(__file__).parents[3] / "examples" / "mug.png")
        plain, shown = (scene.mesh(64, projected=p, faces=3000, texture=256) for p in (False, True))
        for wrong in ({"faces": 10}, {"texture": 10}, {"texture": 100_000}, {"faces": 2.5}):
            with pytest.raises(runtime.OptionError):
                scene.mesh(32, **wrong)
    assert len(shown.faces) <= 3000
    assert trimesh.Trimesh(shown.vertices, shown.faces, process=False).is_watertight
    np.testing.assert_array_equal(plain.texture.uv, shown.texture.uv)
    changed = np.abs(plain.texture.image.astype(int) - shown.texture.image).max(axis=2) > 5
    assert 0.05 < changed.mean() < 0.7

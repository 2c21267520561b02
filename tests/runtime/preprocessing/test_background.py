"""Objects cut out from backgrounds that photographs have, and what `background` and `mask` make of an image."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from scipy import ndimage

import runtime
from benchmarks.backgrounds import BACKGROUNDS, before_background, overlap
from runtime.preprocessing import SURE, prepare, prepare_image
from runtime.preprocessing.background import cut_out, to_oklab
from runtime.preprocessing.regions import blurred, components, dilated, eroded, touching_border

EXAMPLES = Path(__file__).parents[3] / "examples"
SIZE, RATIO = 64, 0.7


def example(name):
    with Image.open(EXAMPLES / f"{name}.png") as opened:
        return np.asarray(opened.convert("RGBA"), np.float32) / 255


@pytest.mark.parametrize("name", ["chair", "mug", "car"])
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_object_before_an_even_background_is_cut_out(name, background):
    rgba = example(name)
    cutout = cut_out(before_background(rgba, background).transpose(2, 0, 1).copy())
    assert overlap(cutout.rgba[3], rgba[..., 3]) > 0.9
    assert cutout.confidence >= SURE


def test_the_edge_has_the_objects_own_colour():
    rgba = example("mug")
    cutout = cut_out(before_background(rgba, "white").transpose(2, 0, 1).copy()).rgba
    over_black = (cutout[:3] * cutout[3]).transpose(1, 2, 0)
    wanted = rgba[..., :3] * rgba[..., 3:]
    edge = ndimage.binary_dilation(rgba[..., 3] > 0.5, iterations=3) & ~ndimage.binary_erosion(
        rgba[..., 3] > 0.5, iterations=3
    )
    naive = before_background(rgba, "white") * (cutout[3] > 0.05)[..., None]
    assert np.abs(over_black - wanted)[edge].mean() < 0.6 * np.abs(naive - wanted)[edge].mean()


@pytest.mark.parametrize("cells", [6, 12, 40])
def test_clutter_is_not_sure(cells):
    rng = np.random.default_rng(cells)
    clutter = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
        (384, 384), Image.Resampling.BICUBIC
    )
    rgba = example("chair")
    image = rgba[..., :3] * rgba[..., 3:] + np.asarray(clutter) / np.float32(255) * (1 - rgba[..., 3:])
    assert cut_out(image.transpose(2, 0, 1).astype(np.float32).copy()).confidence < SURE
    with pytest.warns(runtime.BackgroundWarning, match="not removed"):
        kept = prepare_image(image, SIZE, RATIO)
    np.testing.assert_array_equal(kept, prepare_image(image, SIZE, RATIO, background="keep"))


def test_auto_frames_a_photograph_as_its_mask_would():
    rgba = example("chair")
    photo = before_background(rgba, "gradient")
    found, wanted = prepare(photo, SIZE, RATIO), prepare(rgba, SIZE, RATIO)
    assert (found.background, wanted.background) == ("plain", "alpha")
    assert np.abs(found.pixels - wanted.pixels).mean() < 0.05
    masked = prepare(photo, SIZE, RATIO, mask=rgba[..., 3])
    assert masked.background == "mask"
    assert np.abs(masked.pixels - wanted.pixels).mean() < 0.05


def test_an_alpha_that_is_there_is_used_whatever_the_background():
    rgba = example("car")
    for background in ("auto", "plain", "keep"):
        assert prepare(rgba, SIZE, RATIO, background).background == "alpha"


@pytest.mark.parametrize("kind", ["bool", "uint8", "float", "rgb", "rgba", "half size", "path", "pil"])
def test_a_mask_may_be_of_any_kind(kind, tmp_path):
    rgba = example("car")
    solid = rgba[..., 3] > 0.5
    grey = np.where(solid, 255, 0).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    mask = {
        "bool": solid,
        "uint8": grey,
        "float": solid.astype(np.float64),
        "rgb": np.dstack([grey] * 3),
        "rgba": np.dstack([np.full_like(grey, 9)] * 3 + [grey]),
        "half size": grey[::2, ::2],
        "path": tmp_path / "mask.png",
        "pil": Image.fromarray(grey),
    }[kind]
    found = prepare(rgba[..., :3], SIZE, RATIO, mask=mask)
    wanted = prepare(np.dstack([rgba[..., :3], solid.astype(np.float32)]), SIZE, RATIO)
    assert np.abs(found.pixels - wanted.pixels).mean() < 0.02


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((384, 384), np.uint8), "The mask is empty"),
        (np.ones((100, 384), bool), "proportions differ"),
        ("nowhere.png", "The mask cannot be used. There is no image file"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, said):
    with pytest.raises(runtime.ImageError, match=said):
        prepare(example("car")[..., :3], SIZE, RATIO, mask=mask)


def test_an_unknown_background_and_one_without_an_object_are_refused():
    with pytest.raises(runtime.OptionError, match="auto, keep, plain, rembg"):
        prepare(example("car"), SIZE, RATIO, background="blur")
    with pytest.raises(runtime.ImageError, match="No object stands out"):
        prepare(np.full((80, 80, 3), 0.5), SIZE, RATIO, background="plain")


def test_the_runtime_and_lists_take_backgrounds_and_masks(tiny_runtime):
    rgba = example("chair")
    photo = before_background(rgba, "even")
    scene = tiny_runtime.reconstruct(photo)
    assert scene.source.background == "plain"
    masked, cut = tiny_runtime.reconstruct([photo, photo], mask=[rgba[..., 3], None])
    assert (masked.source.background, cut.source.background) == ("mask", "plain")
    np.testing.assert_array_equal(cut.triplane, scene.triplane)
    with pytest.raises(runtime.OptionError, match="not one mask for each"):
        tiny_runtime.reconstruct([photo, photo], mask=[rgba[..., 3]])


@pytest.fixture(scope="module")
def rembg():
    """rembg, without the alpha matting that is not used here: compiling that takes a minute."""
    if importlib.util.find_spec("rembg") is None:
        pytest.skip("rembg is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name, function in (
            ("pymatting.alpha.estimate_alpha_cf", "estimate_alpha_cf"),
            ("pymatting.foreground.estimate_foreground_ml", "estimate_foreground_ml"),
            ("pymatting.util.util", "stack_images"),
        ):
            for parent in ("pymatting", name.rpartition(".")[0]):
                patch.setitem(sys.modules, parent, ModuleType(parent))
            module = ModuleType(name)
            setattr(module, function, None)
            patch.setitem(sys.modules, name, module)
        yield importlib.import_module("rembg")


@pytest.fixture
def network(tmp_path):
    """An ONNX file with U2-Net's signature whose mask is the red channel."""
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["input", "zero", "one", "axis"], ["red"]),
            helper.make_node("Identity", ["red"], ["mask"]),
        ],
        "u2net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 320, 320])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, 320, 320])],
        [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("zero", 0), ("one", 1), ("axis", 1))],
    )
    path = tmp_path / "red.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def red_disc():
    y, x = np.mgrid[0:200, 0:200] - 100
    image = np.random.default_rng(0).integers(0, 60, (200, 200, 3), np.uint8)
    image[np.hypot(x, y) < 60] = (250, 20, 20)
    return image


def test_a_network_of_the_users_own_removes_backgrounds(tiny_bundle, network, rembg):
    with runtime.load(tiny_bundle, background_model=network) as rt:
        source = rt.reconstruct(red_disc(), background="rembg").source
    assert source.background == "rembg"
    solid = source.alpha > 0.5
    assert solid[32, 32]
    assert not solid[0].any()
    assert solid.mean() == pytest.approx(np.pi / 4 * 0.7**2, rel=0.2)


def test_without_rembg_the_extra_is_named_and_auto_goes_on(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    with runtime.load(tiny_bundle) as rt:
        with pytest.raises(runtime.OptionError, match="rembg, which is not installed") as caught:
            rt.reconstruct(red_disc(), background="rembg")
        assert "[background]" in caught.value.remedy
        with pytest.warns(runtime.BackgroundWarning, match="not removed"):
            rt.reconstruct(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_auto_downloads_nothing(tiny_bundle, monkeypatch, tmp_path, rembg):
    for name in ("U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(rembg, "new_session", lambda *_, **__: pytest.fail("a session was opened"))
    with runtime.load(tiny_bundle) as rt, pytest.warns(runtime.BackgroundWarning, match="not removed"):
        rt.reconstruct(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_a_background_model_that_is_not_there_is_named(tiny_bundle, tmp_path, rembg):
    missing = pytest.raises(runtime.OptionError, match=r"no background model at .*none\.onnx")
    with runtime.load(tiny_bundle, background_model=tmp_path / "none.onnx") as rt, missing:
        rt.reconstruct(red_disc(), background="rembg")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.1, 0.9), st.integers(0, 1000))
def test_regions_are_those_of_scipy(height, width, share, seed):
    mask = np.random.default_rng(seed).uniform(size=(height, width)) < share
    labels, count = ndimage.label(mask)
    found = components(mask)
    assert (found >= 0).tolist() == mask.tolist()
    assert len(np.unique(found[mask])) == count
    for number in range(1, count + 1):
        assert len(np.unique(found[labels == number])) == 1
    edge = set(np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))) - {0}
    np.testing.assert_array_equal(touching_border(mask), np.isin(labels, list(edge)))
    square = np.ones((5, 5), bool)
    np.testing.assert_array_equal(dilated(mask, 2), ndimage.binary_dilation(mask, square))
    np.testing.assert_array_equal(eroded(mask, 2), ndimage.binary_erosion(mask, square, border_value=1))
    values = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    np.testing.assert_allclose(blurred(values, 1), ndimage.uniform_filter(values, 3, mode="nearest"), atol=1e-5)


def test_oklab_has_its_published_values():
    """Ottosson 2020, the table of examples, by way of XYZ; sRGB white is (1, 0, 0)."""
    np.testing.assert_allclose(to_oklab(np.ones(3, np.float32)), [1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(to_oklab(np.array([1, 0, 0], np.float32)), [0.62796, 0.22486, 0.12585], atol=1e-4)

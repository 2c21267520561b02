"""Random and damaged inputs: nothing but the project's own errors, in little memory and time.

`FUZZ_EXAMPLES=10000 pytest tests/fuzz` tries as many of each kind; the suite tries a few.
"""

import io
import json
import os
import shutil
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from export.bundle_writer import write_manifest
from model.training.data.posed import find_views
from runtime.bundle import load_bundle
from runtime.errors import ProjectError
from runtime.manifest import FORMAT_VERSION
from runtime.preprocessing import prepare

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
MOST_MEMORY = 400 << 20
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=20_000,
    derandomize=EXAMPLES < 1000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def seeds():
    """Small files of every kind that is read."""
    rgba = np.random.default_rng(0).integers(0, 256, (20, 24, 4), np.uint8)
    made = []
    for kind, mode in (
        ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("PNG", "LA"), ("PNG", "I;16"), ("JPEG", "RGB"), ("JPEG", "CMYK"),
        ("WEBP", "RGBA"), ("BMP", "RGB"), ("TIFF", "RGBA"), ("TIFF", "F"), ("GIF", "P"), ("PPM", "RGB"),
    ):  # fmt: skip
        buffer = io.BytesIO()
        Image.fromarray(rgba).convert("L" if mode in ("I;16", "F") else mode).convert(mode).save(buffer, kind)
        made.append(buffer.getvalue())
    return made


@st.composite
def damaged_files(draw):
    data = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["byte", "cut", "insert", "repeat"])):
            case "byte":
                data[at] = draw(st.integers(0, 255))
            case "cut":
                data = data[: at + 1]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


def only_our_errors(work):
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except ProjectError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_MEMORY


@fuzzed
@given(damaged_files() | st.binary(max_size=200), st.sampled_from(["auto", "keep", "plain"]))
def test_damaged_files_are_images_or_errors(data, background):
    only_our_errors(lambda: prepare(data, 32, 0.7, background))


@fuzzed
@given(
    st.sampled_from(["u1", "u2", "i4", "f2", "f4", "f8", "?", "c8", "U3", "O"]),
    st.lists(st.integers(0, 40), min_size=0, max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["auto", "keep", "plain"]),
)
def test_arrays_of_any_shape_and_kind_are_images_or_errors(dtype, shape, seed, background):
    values = np.random.default_rng(seed).normal(size=shape) * 10 ** (seed % 5 - 2)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.abs(values).astype(dtype)
    only_our_errors(lambda: prepare(array, 32, 0.7, background))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def altered(draw, value):
    """The value with something inside replaced, removed or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 4)):
            return {k: v for k, v in value.items() if k != key}
        return value | {key: altered(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], altered(draw, value[at]), *value[at + 1 :]]
    return draw(JSON)


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("fuzz") / "bundle")
    return folder, json.loads((folder / "manifest.json").read_text())


@fuzzed
@given(st.data())
def test_a_signed_manifest_of_anything_is_a_bundle_or_an_error(bundle, data):
    folder, manifest = bundle
    changed = altered(data.draw, {k: v for k, v in manifest.items() if k not in ("sha256", "schedule")})
    if isinstance(changed, dict):
        changed.setdefault("schedule", manifest["schedule"])
        write_manifest(folder, changed | {"format_version": FORMAT_VERSION})
    else:
        (folder / "manifest.json").write_text(json.dumps(changed))
    only_our_errors(lambda: load_bundle(folder))


TRANSFORMS = {
    "camera_angle_x": 0.7, "camera_angle_y": 0.7, "fl_x": 40.0, "fl_y": 40.0, "w": 32, "h": 32, "cx": 16, "cy": 16,
    "k1": 0.0, "camera_model": "OPENCV", "depth_unit": 1e-4,
    "frames": [{"file_path": "r_0", "transform_matrix": np.eye(4).tolist(), "depth_file_path": "r_0.png"}],
}  # fmt: skip


@fuzzed
@given(st.data())
def test_transforms_of_anything_are_views_or_an_error(tmp_path, data):
    if not (tmp_path / "r_0.png").exists():
        Image.new("RGBA", (32, 32)).save(tmp_path / "r_0.png")
    (tmp_path / "transforms.json").write_text(json.dumps(altered(data.draw, TRANSFORMS)))
    only_our_errors(lambda: find_views(tmp_path).rgba(0))

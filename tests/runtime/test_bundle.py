"""A bundle that is altered, incomplete or from the future is refused, with the reason."""

import json
import shutil

import onnxruntime as ort
import pytest

import runtime
from export.bundle_writer import write_manifest
from runtime.bundle import GRAPHS, load_bundle, load_variant


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def rewrite(folder, change):
    """Changes the manifest and signs it again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    write_manifest(folder, manifest)


def test_the_shipped_bundle_is_whole():
    bundle = load_bundle(runtime.default_bundle())
    assert bundle.precisions[0] == "float32"
    assert bundle.channels == 16
    assert not any(b"stack_trace" in data for data in bundle.files.values()), "no paths of the exporting machine"


@pytest.mark.parametrize("file", ["manifest.json", *(f"float32/{graph}.onnx" for graph in GRAPHS)])
def test_one_altered_byte_anywhere_is_found(copy, file):
    path = copy / file
    raw = path.read_bytes()
    for position in (0, len(raw) // 3, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        with pytest.raises(runtime.BundleError) as caught:
            runtime.load(copy)
        assert file.split("/")[-1] in caught.value.cause
        assert "export" in caught.value.remedy
    path.write_bytes(raw)
    runtime.load(copy).close()


def test_every_byte_of_the_manifest_counts(copy):
    path = copy / "manifest.json"
    raw = path.read_bytes()
    for position in [*range(0, 200), *range(200, len(raw), 997)]:
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :])
        with pytest.raises(runtime.BundleError):
            load_bundle(copy)


def test_a_runtime_keeps_one_variant_and_verifies_all(tiny_variants, tmp_path):
    bundle = load_variant(tiny_variants, "int8")
    assert set(bundle.files) == {f"int8/{graph}.onnx" for graph in GRAPHS}
    assert bundle.files == {name: load_bundle(tiny_variants).files[name] for name in bundle.files}
    with pytest.raises(runtime.OptionError, match="no precision 'int4'"):
        load_variant(tiny_variants, "int4")
    copy = shutil.copytree(tiny_variants, tmp_path / "bundle")
    path = copy / "float16" / "coarse.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(runtime.BundleError, match="coarse"):
        load_variant(copy, "int8")
    path.unlink()
    with pytest.raises(runtime.BundleError, match="cannot be read"):
        load_variant(copy, "int8")


def test_line_endings_that_git_changed_are_told_apart(copy):
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(runtime.BundleError, match="Windows line endings") as caught:
        load_bundle(copy)
    assert "autocrlf" in caught.value.remedy


@pytest.mark.parametrize("file", ["manifest.json", "float32/coarse.onnx"])
def test_a_missing_file_is_named(copy, file):
    (copy / file).unlink()
    with pytest.raises(runtime.BundleError, match=file.split("/")[-1]):
        runtime.load(copy)


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(runtime.BundleError, match="no bundle folder"):
        runtime.load(tmp_path / "nothing")


def test_a_future_version_is_told_apart_from_damage(copy):
    path = copy / "manifest.json"
    for text in (path.read_text().replace('"format_version": 3', '"format_version": 4'), '{"format_version": 4}'):
        path.write_text(text)
        with pytest.raises(runtime.BundleError, match="format version 4; this runtime reads version 3"):
            runtime.load(copy)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"format_version": 3, "sha256": "%s"}' % (r"\ud800" * 64)])
def test_a_manifest_that_no_exporter_writes_is_refused(copy, text):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(runtime.BundleError, match=r"damaged|altered"):
        runtime.load(copy)


def test_files_outside_the_folder_are_refused(copy):
    rewrite(copy, lambda m: m["precisions"]["float32"]["graphs"]["coarse"].update(file="../coarse.onnx"))
    with pytest.raises(runtime.BundleError, match="outside the bundle"):
        runtime.load(copy)


def test_a_graph_that_is_not_as_the_manifest_says_is_refused(copy):
    rewrite(copy, lambda m: m["precisions"]["float32"]["graphs"]["decoder"]["inputs"][0].update(shape=["batch", 7, 24]))
    with pytest.raises(runtime.BundleError, match="'decoder' has other inputs"):
        runtime.load(copy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["precisions"]["float32"].pop("graphs"), "graphs"),
        (lambda m: m.update(precisions={}), "precisions"),
        (lambda m: m.pop("defaults"), "defaults"),
        (lambda m: m.pop("trained"), "trained"),
        (lambda m: m.update(name=3), "name, which should be of type str"),
        (lambda m: m.update(parameters=True), "parameters, which should be of type int"),
        (lambda m: m["image"].update(framing="wide"), "image.framing, which should be of type int or float"),
        (lambda m: m["schedule"]["alpha"].__setitem__(3, None), r"schedule.alpha\[3\], which should be"),
        (lambda m: m["schedule"].update(alpha=[1.0]), "schedule"),
        (lambda m: m["statistics"].update(detail_mean=[[0.0]]), "detail_mean"),
        (lambda m: m["model"].update(resolution=32), "resolution"),
        (lambda m: m["precisions"]["float32"]["graphs"]["coarse"].update(file=3), "."),
        (lambda m: m["precisions"]["float32"]["graphs"]["coarse"].update(inputs=[{}]), "name, which is not there"),
        (lambda m: m["precisions"]["float32"]["graphs"]["coarse"].update(file="a\0b"), "name of a file"),
        (lambda m: m["precisions"]["float32"]["graphs"].pop("view"), "lacks view"),
    ],
)
def test_a_signed_manifest_that_lacks_or_garbles_something_is_refused(copy, change, reason):
    rewrite(copy, change)
    with pytest.raises(runtime.BundleError, match=reason):
        runtime.load(copy)


@pytest.mark.parametrize("path", [5, "a\0b", "x" * 5000])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(runtime.BundleError, match="bundle"):
        runtime.load(path)


def test_graphs_run_in_plain_onnxruntime_as_the_manifest_names_them(tiny_bundle):
    import numpy as np

    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    sizes = {"batch": 2, "points": 5, "rays": 4, "samples": 3}
    for name in GRAPHS:
        entry = manifest["precisions"]["float32"]["graphs"][name]
        session = ort.InferenceSession(tiny_bundle / entry["file"], providers=["CPUExecutionProvider"])
        feeds = {t["name"]: np.zeros([sizes.get(n, n) for n in t["shape"]], t["dtype"]) for t in entry["inputs"]}
        results = session.run([t["name"] for t in entry["outputs"]], feeds)
        for result, spec in zip(results, entry["outputs"], strict=True):
            assert result.shape == tuple(sizes.get(n, n) for n in spec["shape"])
            assert result.dtype == spec["dtype"]

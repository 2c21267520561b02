"""Engines built without a GPU: every graph and precision, the cache that is never stale, errors that name names."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import onnx
import pytest
from onnx import helper

import export.to_tensorrt as exporter
from export.engine_builder import BuildError, Built, build, profile_of
from export.graphs import graph_definitions
from export.lint import LintError, check
from export.quantize import calibration_feeds, calibration_images
from export.to_onnx import FORMS, convert, export_forms, untrained_model
from export.to_tensorrt import BATCH, POINTS, TARGETS, VIEWS, build_engines
from runtime.backends.tensorrt.engine_file import engine_path, open_engine
from runtime.backends.tensorrt.installation import Flavour, find_flavour
from runtime.bundle import ENGINE_GRAPHS, Graph, load_bundle
from runtime.errors import BackendError, OptionError

pytest.importorskip("tensorrt_rtx_bindings")
RANGES = {"batch": BATCH, "points": POINTS, **VIEWS}


@pytest.fixture(scope="module")
def rtx():
    return find_flavour("rtx")


@pytest.fixture(scope="module")
def bundle(tiny_variants):
    return load_bundle(tiny_variants)


def run(bundle, out, rtx, **options):
    return list(build_engines(bundle, out, rtx, ["float16"], **({"targets": ["sm89"]} | options)))


# All sizes have the same operators; EVERY_PRESET=1 builds small and medium as well, in two minutes more.
@pytest.mark.parametrize("preset", ["tiny", "small", "medium"] if os.environ.get("EVERY_PRESET") else ["tiny"])
def test_every_graph_builds_in_every_precision_for_every_target(preset, rtx, tiny_model, export_once):
    model = tiny_model if preset == "tiny" else untrained_model(preset)
    definitions = graph_definitions(model)
    export = export_once if preset == "tiny" else export_forms
    exported = export(model, ["onnxruntime", "plain", "compilers"])
    feeds = calibration_feeds(exported["plain"], calibration_images(model.config.image_size)[:1], 1000)
    for name in ENGINE_GRAPHS:
        definition = definitions[name]
        sizes = {}
        for precision, dtype in {"float32": "FLOAT", "float16": "HALF", "int8": "INT8"}.items():
            if precision == "int8" and name not in feeds:
                continue
            proto = convert(exported[FORMS[precision]][name], name, precision, feeds)
            assert check(proto, definition.inputs, definition.outputs) == []
            graph = Graph(name, proto.SerializeToString(), definition.inputs, definition.outputs)
            made = build(graph, profile_of(graph, RANGES), rtx, TARGETS, 1 << 30, dtype, lambda _: None)
            assert len(made.plan) > 10_000
            sizes[dtype] = len(made.plan)
            # In float32 the lifts are gathers.
            sampled = ("renderer", "view") if precision == "float32" else ("coarse", "renderer", "view")
            assert (("GRID_SAMPLE", "FLOAT") in made.layers) == (name in sampled)
            if dtype == "HALF" and name in ("coarse", "diffusion_step"):
                assert ("CONVOLUTION", "FLOAT") not in made.layers
                assert made.layers["CONVOLUTION", "HALF"] > 10
            # The inverse transform and the timestep stay in float32, and only convolutions are quantised.
            assert made.share == 1 if dtype == "FLOAT" else made.share > 0.4 or name == "assemble"
        if name in ("coarse", "diffusion_step") and preset != "tiny":
            weights = len(exported["plain"][name].SerializeToString())
            assert sizes["FLOAT"] - sizes["HALF"] > 0.35 * weights, "weights are kept in half precision"


def test_nothing_changed_is_no_build(bundle, rtx, tmp_path):
    first = run(bundle, tmp_path, rtx)
    assert [r.reason for r in first] == ["there is none yet"] * len(ENGINE_GRAPHS)
    started = time.perf_counter()
    assert [r.reason for r in run(bundle, tmp_path, rtx)] == [None] * len(ENGINE_GRAPHS)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"batch": (1, 2, 4)},
            "its profile of image is 1x3x64x64 / 1x3x64x64 / 4x3x64x64, not 1x3x64x64 / 2x3x64x64 / 4x3x64x64",
        ),
        (
            {"batch": (1, 1, 3)},
            "its profile of image is 1x3x64x64 / 1x3x64x64 / 4x3x64x64, not 1x3x64x64 / 1x3x64x64 / 3x3x64x64",
        ),
        ({"targets": ["sm89", "sm120"]}, "it is for sm89, not sm89, sm120"),
        ({"workspace": 1 << 29}, "its options are"),
    ],
)
def test_a_changed_setting_rebuilds_and_says_why(bundle, rtx, tmp_path, change, reason):
    run(bundle, tmp_path, rtx)
    rebuilt = run(bundle, tmp_path, rtx, **change)
    assert rebuilt[0].reason.startswith(reason)
    assert [r.reason for r in run(bundle, tmp_path, rtx, **change)] == [None] * len(ENGINE_GRAPHS)


def flavour_of(name, version):
    return Flavour(name, SimpleNamespace(__version__=version))


INSTALLED = flavour_of("tensorrt", "10.13")


def altered(bundle):
    """The same bundle with another comment in each graph."""
    files = {}
    for path, data in bundle.files.items():
        proto = onnx.load_from_string(data)
        proto.doc_string = "altered"
        files[path] = proto.SerializeToString()
    return dataclasses.replace(bundle, files=files)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bundle": altered}, "the graph is another one"),
        (
            {"flavour": flavour_of("rtx", "10.13")},
            "it is for the flavour tensorrt, not rtx; it is for NVIDIA L4, sm89, not ",
        ),
        ({"flavour": flavour_of("tensorrt", "10.14")}, "it was built by version 10.13, 10.14 is installed"),
        ({"gpu": "NVIDIA RTX 4090, sm89"}, "it is for NVIDIA L4, sm89, not NVIDIA RTX 4090, sm89"),
        ({"gpu": "NVIDIA L4, sm90"}, "it is for NVIDIA L4, sm89, not NVIDIA L4, sm90"),
        ({"batch": (1, 2, 4)}, "its profile of image is 1x3x64x64 / 1x3x64x64 / 4x3x64x64, not "),
        ({"points": (1, 8, 9)}, "its profile of points is 1x1x3 / 1x65536x3 / 4x65536x3, not 1x1x3 / 1x8x3 / 4x9x3"),
        ({"workspace": 1 << 20}, "its options are {'workspace': 1073741824, 'tf32': False}, not "),
    ],
    ids=["graph", "flavour", "version", "gpu", "capability", "batch", "points", "workspace"],
)
def test_each_part_of_the_key_in_turn_rebuilds_and_says_why(bundle, tmp_path, monkeypatch, change, reason):
    """On a builder that builds nothing: what is there is tied to all of it, whatever the machine has."""
    built = []

    def note(graph, *rest):
        built.append(graph.name)
        return Built(b"plan", {}, 1.0)

    def once(bundle=bundle, flavour=INSTALLED, gpu="NVIDIA L4, sm89", **options):
        built.clear()
        monkeypatch.setattr(exporter, "gpu_name", lambda: gpu)
        return [r.reason for r in build_engines(bundle, tmp_path, flavour, ["float16"], **options)]

    monkeypatch.setattr(exporter, "build", note)
    monkeypatch.setattr(exporter, "check", lambda *_: [])
    assert once() == ["there is none yet"] * len(ENGINE_GRAPHS)
    assert once() == [None] * len(ENGINE_GRAPHS)
    assert not built
    changed = dict(change)
    if "bundle" in changed:
        changed["bundle"] = changed["bundle"](bundle)
    reasons = once(**changed)
    affected = [name for name, said in zip(ENGINE_GRAPHS, reasons, strict=True) if said is not None]
    assert built == affected
    # A view is of one triplane, whatever the batch.
    only = {"points": ["renderer"], "batch": [name for name in ENGINE_GRAPHS if name != "view"]}
    assert affected == only.get(next(iter(change)), list(ENGINE_GRAPHS))
    assert reasons[ENGINE_GRAPHS.index(affected[0])].startswith(reason)
    assert once(**changed) == [None] * len(ENGINE_GRAPHS)


def test_damaged_engines_are_built_again(bundle, rtx, tmp_path):
    run(bundle, tmp_path, rtx)
    paths = [engine_path(tmp_path, "float16", name) for name in ENGINE_GRAPHS]
    raw = [path.read_bytes() for path in paths]
    paths[0].write_bytes(raw[0][:-1000])
    paths[1].write_bytes(raw[1][:-1000] + bytes([raw[1][-1000] ^ 255]) + raw[1][-999:])
    reasons = [r.reason for r in run(bundle, tmp_path, rtx)]
    assert "the file is damaged" in reasons[0]
    assert "does not match its sha256" in reasons[1]
    assert reasons[2] is None


def test_a_build_killed_at_any_moment_leaves_the_cache_whole(tiny_variants, bundle, rtx, tmp_path):
    command = [
        sys.executable,
        exporter.__file__,
        "--bundle",
        tiny_variants,
        "--precision",
        "float16",
        "--out",
        tmp_path,
    ]
    for delay in (0.8, 1.4, 2.0, 2.6):
        process = subprocess.Popen(
            [*command, "--targets", "sm89"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.kill()
        process.wait()
        for name in ENGINE_GRAPHS:
            path = engine_path(tmp_path, "float16", name)
            if path.exists():
                assert open_engine(path)[1]
    results = run(bundle, tmp_path, rtx)
    assert all(r.reason in (None, "there is none yet") for r in results)


def test_two_builds_at_once_end_with_one_engine(tiny_variants, bundle, rtx, tmp_path):
    command = [sys.executable, exporter.__file__, "--bundle", tiny_variants, "--precision", "float16"]
    builds = [
        subprocess.Popen([*command, "--out", tmp_path, "--targets", "sm89"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = "".join(build.communicate()[0] for build in builds)
    assert [build.returncode for build in builds] == [0, 0]
    for name in ENGINE_GRAPHS:
        assert said.count(f"float16 {name} was built: there is none yet.") == 1
    assert said.count("up to date") == len(ENGINE_GRAPHS)
    assert "CONVOLUTION HALF" in said
    assert [r.reason for r in run(bundle, tmp_path, rtx)] == [None] * len(ENGINE_GRAPHS)


def test_what_was_built_is_reported_before_the_error_that_ended_it(tiny_variants, tmp_path, monkeypatch, capsys):
    def failing(graph, *rest):
        if graph.name == "diffusion_step":
            raise BuildError("'diffusion_step' did not build: no reason.")
        return Built(b"plan", {("CONVOLUTION", "HALF"): 3}, 1.0)

    monkeypatch.setattr(exporter, "build", failing)
    with pytest.raises(SystemExit):
        exporter.main(tiny_variants, tmp_path, "rtx", ["float16"], targets="sm89")
    printed = capsys.readouterr()
    assert "float16 coarse was built: there is none yet." in printed.out
    assert "3 CONVOLUTION HALF" in printed.out
    assert "error: 'diffusion_step' did not build" in printed.err
    assert engine_path(tmp_path, "float16", "coarse").exists()


def unknown_operator():
    node = helper.make_node("Det", ["x"], ["y"], name="volume")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, ["batch", 2, 2])],
        [helper.make_tensor_value_info("y", 1, ["batch"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_an_operator_that_does_not_parse_is_named_with_its_node(rtx, bundle):
    proto = unknown_operator()
    spec = dataclasses.replace(bundle.graph("float32", "coarse").inputs[0], name="x", shape=("batch", 2, 2))
    with pytest.raises(LintError, match=r"volume \(Det\)"):
        check(proto, [spec], [])
    graph = Graph("bad", proto.SerializeToString(), (spec,), ())
    with pytest.raises(BuildError, match=r"'bad' does not parse in rtx .*node volume \(Det\)"):
        build(graph, profile_of(graph, RANGES), rtx, ["sm89"], 1 << 28, "FLOAT", lambda _: None)


def test_a_grid_sample_that_is_not_linear_is_refused(rtx, bundle):
    graph = bundle.graph("float32", "renderer")
    proto = onnx.load_from_string(graph.data)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "GridSample" and attribute.name == "mode":
                attribute.s = b"nearest"
    nearest = dataclasses.replace(graph, data=proto.SerializeToString())
    with pytest.raises(BuildError, match=r"'renderer': .* was read as .*NEAREST, not as linear"):
        build(nearest, profile_of(graph, RANGES), rtx, ["sm89"], 1 << 28, "FLOAT", lambda _: None)


@pytest.mark.parametrize("batch", [(0, 1, 4), (2, 1, 4), (1, 5, 4)])
def test_a_profile_out_of_order_names_the_input(bundle, rtx, tmp_path, batch):
    with pytest.raises(BuildError, match=r"Input 'image' of 'coarse': batch = "):
        run(bundle, tmp_path, rtx, batch=batch)


def test_a_profile_outside_the_graphs_limits_names_the_input(bundle, rtx):
    graph = bundle.graph("float32", "coarse")
    proto = onnx.load_from_string(graph.data)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    fixed = dataclasses.replace(graph, data=proto.SerializeToString())
    with pytest.raises(BuildError, match=r"Input 'image' of 'coarse' is \(2, 3, 64, 64\)"):
        build(fixed, profile_of(graph, RANGES), rtx, ["sm89"], 1 << 28, "FLOAT", lambda _: None)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"other": [[1, 3, 64, 64]] * 3}, "Input 'image' of 'coarse' is not in the profile of other"),
        ({"image": [[1, 3, 64]] * 3}, r"Input 'image' of 'coarse' is \(-1, 3, 64, 64\).*\(1, 3, 64\) is outside"),
    ],
)
def test_a_profile_of_other_names_or_ranks_names_the_input(bundle, rtx, profile, said):
    with pytest.raises(BuildError, match=said):
        build(bundle.graph("float32", "coarse"), profile, rtx, ["sm89"], 1 << 28, "FLOAT", lambda _: None)


def test_what_cannot_be_is_said(bundle, rtx, tmp_path):
    with pytest.raises(BuildError, match="int8-cpu runs on a CPU alone"):
        list(build_engines(bundle, tmp_path, rtx, ["int8-cpu"]))
    with pytest.raises(BuildError, match="Unknown target 'sm1'; there are"):
        run(bundle, tmp_path, rtx, targets=["sm1"])
    with pytest.raises(OptionError, match="Unknown flavour 'torch'"):
        find_flavour("torch")
    with pytest.raises(OptionError, match="no precision 'int4'"):
        list(build_engines(bundle, tmp_path, rtx, ["int4"]))


def test_tensorrt_proper_is_an_error_where_it_is_not_installed():
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed here")
    with pytest.raises(
        BackendError, match=r"No TensorRT is installed \(tensorrt: ModuleNotFoundError\).*`pip install tensorrt"
    ):
        find_flavour("tensorrt")

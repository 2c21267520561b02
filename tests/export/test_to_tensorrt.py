"""Engines built without a GPU: every graph and precision, the cache that is never stale, errors that name names."""

import dataclasses
import importlib.util
import subprocess
import sys
import threading
import time

import onnx
import pytest
from onnx import helper

import export.to_tensorrt as exporter
from export.engine_builder import BuildError, build, profile_of
from export.graphs import graph_definitions, to_onnx
from export.lint import LintError, check
from export.precision import to_float16
from export.quantize import calibration_feeds, calibration_pictures, to_int8
from export.to_onnx import untrained_model
from export.to_tensorrt import BATCH, POINTS, TARGETS, build_engines
from runtime.bundle import ENGINE_GRAPHS, Graph, load_bundle
from runtime.engines import EngineKey, EngineMiss, _opened, engine_path, find_engine, read_engine, write_engine
from runtime.errors import BackendError, OptionError
from runtime.flavours import find_flavour

pytest.importorskip("tensorrt_rtx_bindings")
RANGES = {"batch": BATCH, "points": POINTS}


@pytest.fixture(scope="module")
def rtx():
    return find_flavour("rtx")


@pytest.fixture(scope="module")
def bundle(tiny_variants):
    return load_bundle(tiny_variants)


def run(bundle, out, rtx, **options):
    return list(build_engines(bundle, out, rtx, ["float16"], **({"targets": ["sm89"]} | options)))


@pytest.mark.parametrize("preset", ["small", "medium"])
def test_every_graph_builds_in_every_precision_for_every_target(preset, rtx):
    model = untrained_model(preset)
    definitions = {d.name: d for d in graph_definitions(model)}
    exact = {name: to_onnx(definitions[name]) for name in ENGINE_GRAPHS}
    feeds = calibration_feeds(exact, calibration_pictures(model.config.image_size)[:1], 1000)
    for name in ENGINE_GRAPHS:
        definition = definitions[name]
        protos = {"FLOAT": exact[name], "HALF": to_float16(exact[name])}
        if name in feeds:
            protos["INT8"] = to_int8(exact[name], feeds[name], cpu_only=False)
        sizes = {}
        for dtype, proto in protos.items():
            assert check(proto, definition.inputs, definition.outputs) == []
            graph = Graph(name, proto.SerializeToString(), definition.inputs, definition.outputs)
            made = build(graph, profile_of(graph, RANGES), rtx, TARGETS, 1 << 30, dtype, lambda _: None)
            assert len(made.plan) > 100_000
            sizes[dtype] = len(made.plan)
            assert (("GRID_SAMPLE", "FLOAT") in made.layers) == (name in ("coarse", "renderer"))
            if dtype == "HALF" and name in ("coarse", "diffusion_step"):
                assert ("CONVOLUTION", "FLOAT") not in made.layers
                assert made.layers["CONVOLUTION", "HALF"] > 10
            # The inverse transform and the timestep stay in float32, and only convolutions are quantised.
            assert made.share == 1 if dtype == "FLOAT" else made.share > 0.4 or name == "assemble"
        if name in ("coarse", "diffusion_step"):
            weights = len(exact[name].SerializeToString())
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


def test_every_part_of_the_key_counts(tmp_path):
    key = EngineKey("a" * 64, "rtx", "1.7.1", "sm89", {"x": [[1, 3], [1, 3], [4, 3]]}, {"workspace": 1})
    path = tmp_path / "x.engine"
    write_engine(path, key, b"plan")
    assert read_engine(path, key) == b"plan"
    changes = {
        "graph": ("b" * 64, "the graph is another one"),
        "flavour": ("tensorrt", "it is for the flavour rtx, not tensorrt"),
        "version": ("1.8.0", "it was built by version 1.7.1, 1.8.0 is installed"),
        "device": ("sm120", "it is for sm89, not sm120"),
        "profile": ({"x": [[1, 3], [1, 3], [5, 3]]}, "its profile of x is 1x3 / 1x3 / 4x3, not 1x3 / 1x3 / 5x3"),
        "options": ({"workspace": 2}, "its options are {'workspace': 1}, not {'workspace': 2}"),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(EngineKey)}
    for name, (value, reason) in changes.items():
        with pytest.raises(EngineMiss) as caught:
            read_engine(path, dataclasses.replace(key, **{name: value}))
        assert str(caught.value) == reason


def test_a_damaged_engine_is_refused_whatever_byte_is_hit(tmp_path):
    key = EngineKey("a" * 64, "rtx", "1", "sm89", {}, {})
    path = tmp_path / "x.engine"
    write_engine(path, key, bytes(range(200)))
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        for read in (
            lambda: read_engine(path, key),
            lambda: find_engine(path, "a" * 64, "rtx", "1", "NVIDIA L4, sm89"),
        ):
            with pytest.raises(EngineMiss):
                read()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(EngineMiss):
            read_engine(path, key)


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
                assert _opened(path)[1]
    results = run(bundle, tmp_path, rtx)
    assert all(r.reason in (None, "there is none yet") for r in results)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_an_engine_is_written_leaves_the_one_before(tmp_path, moment):
    path = tmp_path / "x.engine"
    old, new = (EngineKey(graph * 64, "rtx", "1", "sm89", {}, {}) for graph in "ab")
    write_engine(path, old, b"old plan")
    code = f"""
import os, pathlib
from runtime.engines import EngineKey, write_engine
def die(*_):
    os.kill(os.getpid(), 9)
os.fsync = die
if {moment!r} == "replace":
    os.fsync, pathlib.Path.replace = (lambda _: None), die
write_engine(pathlib.Path({str(path)!r}), EngineKey("b" * 64, "rtx", "1", "sm89", {{}}, {{}}), bytes(1 << 20))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2, "the killed build had begun to write"
    assert read_engine(path, old) == b"old plan"
    write_engine(path, new, b"new plan")
    assert read_engine(path, new) == b"new plan"
    assert list(tmp_path.iterdir()) == [path], "what the killed build left is cleared away"


def test_two_builds_at_once_end_with_one_engine(bundle, rtx, tmp_path):
    results = [[], []]
    threads = [threading.Thread(target=lambda i=i: results[i].extend(run(bundle, tmp_path, rtx))) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, other in zip(*results, strict=True):
        assert sorted([mine.reason, other.reason], key=str) == [None, "there is none yet"]


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

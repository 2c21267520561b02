"""ONNX Runtime's launcher without a device: what it captures and when, its options, its threads, its nodes."""

import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

import runtime
from runtime.backends.onnxruntime import cuda
from runtime.backends.onnxruntime.cuda import OrtLauncher, _Bound
from runtime.backends.onnxruntime.session import check_placement
from runtime.bundle import ENGINE_GRAPHS, load_bundle
from tests.runtime.backends.stand_in import StandIn, inputs, made, stacked


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.fixture
def runs(monkeypatch):
    """Every run of ONNX Runtime on a device: the graph, and the number of the captured graph or -1."""
    seen, real = [], _Bound.run

    def run(self, captured):
        seen.append((self.graph, captured))
        real(self, captured)

    monkeypatch.setattr(_Bound, "run", run)
    return seen


def test_onnxruntime_captures_a_graph_for_each_binding_after_a_plain_run(bundle, runs):
    backend, (device,) = made(bundle, "cuda")
    launches = ["coarse", "diffusion_step", "diffusion_step", "assemble"]
    for seed in range(3):
        backend.triplanes(*inputs(bundle, 1, 2, seed=seed))
    plain, *numbered = (runs[4 * k : 4 * k + 4] for k in range(5))
    assert plain == [(name, -1) for name in launches]
    # One run that captures, one that is compared, and one for each later call.
    assert numbered == [[(name, 1 + index) for index, name in enumerate(launches)]] * 4
    assert len(runs) == 20
    assert not any(entry[0] in ("capture", "replay") for entry in device.log), "the device captures nothing"
    assert backend.fallback is None
    backend.triplanes(*inputs(bundle, 2, 2))
    assert [number for _, number in runs[-4:]] == [5, 6, 7, 8]
    backend.triplanes(*inputs(bundle, 1, 2))
    assert [number for _, number in runs[-4:]] == [1, 2, 3, 4]
    backend.close()


def test_onnxruntimes_run_options_name_the_captured_graph():
    given = []
    session = SimpleNamespace(run_with_iobinding=lambda binding, options: given.append(options))
    bound = _Bound("coarse", session, None)
    bound()
    bound.run(7)
    assert [options.get_run_config_entry("gpu_graph_id") for options in given] == ["-1", "7"]


def test_what_onnxruntime_captured_is_bounded_and_given_back(bundle, tiny_runtime, runs, monkeypatch, caplog):
    released = []
    monkeypatch.setattr(ort.InferenceSession, "release_captured_graph", lambda self, number: released.append(number))
    backend, _ = made(bundle, "cuda")
    for steps in (10, 11, 12, 13, 14):
        images, plan, seeds = inputs(bundle, 1, steps)
        wanted = stacked(tiny_runtime.backend.triplanes(images, plan, seeds))
        for _ in range(2):
            np.testing.assert_allclose(stacked(backend.triplanes(images, plan, seeds)), wanted, atol=1e-4)
    # 12 + 13 + 14 + 15 are 54 of the 64; 16 more are not to be had, and the oldest shape made way for them.
    assert max(number for _, number in runs) == 54
    assert released[:12] == list(range(1, 13))
    assert "64 graphs are the most" in backend.fallback
    assert caplog.text.count("without a captured graph") == 1
    backend.triplanes(*inputs(bundle, 1, 1))
    assert [number for _, number in runs[-3:]] == [55, 56, 57], "what is left of them is for smaller shapes"
    backend.close()
    assert sorted(released) == list(range(1, 58))


def test_onnxruntime_runs_in_one_thread_for_each_part_whatever_thread_calls(bundle, monkeypatch):
    """It keeps captured graphs by thread: another would capture again, unbounded and without a comparison."""
    seen, real = set(), _Bound.run

    def run(self, captured):
        seen.add(threading.get_ident())
        real(self, captured)

    monkeypatch.setattr(_Bound, "run", run)
    backend, devices = made(bundle, "cuda")
    for _ in range(3):
        thread = threading.Thread(target=backend.triplanes, args=inputs(bundle, 1, 1))
        thread.start()
        thread.join()
    backend.triplanes(*inputs(bundle, 1, 1))
    backend.close()
    assert len(devices) == len(seen) == 1
    assert threading.get_ident() not in seen


def test_a_cuda_provider_that_captures_nothing_is_used_plainly_and_says_so(bundle, monkeypatch):
    """It refuses to open a session where a part of the graph would fall to the CPU."""
    asked = []

    def opened(graph, provider, threads, settings):
        asked.append((graph.name, settings))
        if "enable_cuda_graph" in settings:
            raise runtime.BackendError("not all nodes are on CUDA.", "...")
        return ort.InferenceSession(graph.data)

    monkeypatch.setattr(cuda, "open_session", opened)
    launcher = OrtLauncher(bundle, "float32", StandIn())
    assert [name for name, settings in asked if "enable_cuda_graph" in settings] == [ENGINE_GRAPHS[0]]
    assert [name for name, settings in asked if "enable_cuda_graph" not in settings] == list(ENGINE_GRAPHS)
    assert all(settings["user_compute_stream"] == "7" and settings["use_tf32"] == "0" for _, settings in asked)
    with pytest.raises(runtime.BackendError, match="not all nodes are on CUDA"):
        launcher.capture([])


def test_the_loops_graphs_are_opened_for_capture_and_those_whose_sizes_change_are_not(bundle, monkeypatch):
    asked = {}

    def opened(graph, provider, threads, settings):
        asked[graph.name] = settings.get("enable_cuda_graph")
        return ort.InferenceSession(graph.data)

    monkeypatch.setattr(cuda, "open_session", opened)
    OrtLauncher(bundle, "float32", StandIn())
    assert asked == {"coarse": "1", "diffusion_step": "1", "assemble": "1", "renderer": None, "view": None}


def test_a_graph_that_falls_to_another_provider_is_named(bundle):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    graph = bundle.graph("float32", "coarse")
    assigned = ort.InferenceSession(graph.data, options).get_provider_graph_assignment_info()
    check_placement("coarse", assigned, "CPUExecutionProvider")
    with pytest.raises(runtime.BackendError, match=r"does not run all of the graph 'coarse': .* on CPU.* and \d+ more"):
        check_placement("coarse", assigned, "CUDAExecutionProvider")
    shapes = SimpleNamespace(
        ep_name="CPUExecutionProvider", get_nodes=lambda: [SimpleNamespace(name="n", op_type="Shape")]
    )
    check_placement("coarse", [shapes], "CUDAExecutionProvider")

"""The device backends without a device: their launchers on host memory, profiles, engines, threads, what is freed."""

import hashlib
import logging
import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

import runtime
from runtime import backends
from runtime.backends import cuda
from runtime.backends.cuda import OrtLauncher, _Bound
from runtime.backends.device import Buffer
from runtime.backends.gpu import DeviceBackend
from runtime.backends.onnx import check_placement
from runtime.backends.tensorrt import TensorRTLauncher, engine_folder, load_engines, open_tensorrt
from runtime.bundle import ENGINE_GRAPHS, load_bundle
from runtime.engines import EngineKey, engine_path, write_engine
from runtime.errors import AbsentError
from runtime.scene import Scene
from tests.runtime.stand_in import StandIn, inputs


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


class Engine:
    """An engine as TensorRT has them, of a graph that ONNX Runtime runs on host memory."""

    def __init__(self, graph, most):
        self.graph, self.most, self.session = graph, most, ort.InferenceSession(graph.data)
        self.names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
        self.num_io_tensors = len(self.names)
        self.get_tensor_name = self.names.__getitem__

    def get_tensor_mode(self, name):
        return "TensorIOMode.INPUT" if name in {s.name for s in self.graph.inputs} else "TensorIOMode.OUTPUT"

    def get_tensor_profile_shape(self, name, _):
        shape = next(s.shape for s in self.graph.inputs if s.name == name)
        return [tuple(k if isinstance(d, str) else d for d in shape) for k in (1, 1, self.most)]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return name in self.engine.names

    def execute_async_v3(self, stream):
        assert stream == StandIn.stream
        device = self.engine.device
        if device.fail == "enqueue":
            return False
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        captured = device.recording is not None

        def work():
            # What was captured on a context is lost when the context takes other shapes.
            assert not captured or self.shapes == shapes
            graph, view = self.engine.graph, device.view
            feeds = {s.name: view(Buffer(addresses[s.name], shapes[s.name])).copy() for s in graph.inputs}
            for spec, value in zip(graph.outputs, self.engine.session.run(None, feeds), strict=True):
                view(Buffer(addresses[spec.name], value.shape))[:] = value

        device.submit(work)
        return True


def made(bundle, kind, largest_batch=2, largest_points=50):
    """A device backend on stand-ins, and the devices that it opens."""
    devices = []

    def device():
        devices.append(StandIn())
        return devices[-1]

    def launcher(opened):
        if kind == "cuda":
            return OrtLauncher(bundle, "float32", opened, "CPUExecutionProvider", "cpu")
        engines = {n: Engine(bundle.graph("float32", n), largest_points) for n in ENGINE_GRAPHS}
        for engine in engines.values():
            engine.device = opened
        return TensorRTLauncher(engines, opened, "Build them again.")

    backend = DeviceBackend(kind, "a test", bundle, "float32", device, launcher, largest_batch, largest_points)
    return backend, devices


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_device_backend_gives_what_the_cpu_gives(bundle, tiny_runtime, kind, batch):
    backend, devices = made(bundle, kind)
    images, noise, table = inputs(bundle, batch, 3)
    wanted = tiny_runtime.backend.triplanes(images, noise, table)
    np.testing.assert_allclose(backend.triplanes(images, noise, table), wanted, atol=1e-4)
    for found, expected in zip(
        backend.generate(images, noise, table), tiny_runtime.backend.generate(images, noise, table), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert backend.fallback is None
    backend.close()
    assert all(device.closed and not device.memory for device in devices)


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_fields_are_asked_in_parts_and_planes_uploaded_once(bundle, tiny_runtime, kind):
    backend, (device,) = made(bundle, kind)
    rng = np.random.default_rng(0)
    side = 2 * bundle.resolution
    triplanes = rng.standard_normal((2, 3, bundle.channels, side, side)).astype(np.float32)
    points = rng.uniform(-1, 1, (130, 3)).astype(np.float32)
    for triplane in triplanes:
        device.log.clear()
        for found, wanted in zip(
            backend.field(triplane)(points), tiny_runtime.backend.field(triplane)(points), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        uploads = [entry for entry in device.log if entry[0] == "upload"]
        assert len(uploads) == 1 + 3, "the planes, and three parts of the points"
    backend.close()
    assert not device.memory


def test_a_scene_on_a_device_is_drawn_as_on_the_cpu(bundle, tiny_runtime, pictures):
    backend, _ = made(bundle, "cuda", largest_points=1000)
    scene = tiny_runtime.reconstruct(pictures[0])
    other = Scene(backend, scene.triplane, 1 << 26, bundle.density_scale, bundle.sensitivity)
    np.testing.assert_allclose(other.render(image_size=24).rgb, scene.render(image_size=24).rgb, atol=1e-3)
    backend.close()
    with pytest.raises(runtime.ClosedError):
        other.render(image_size=24)


def test_captured_graphs_of_other_batches_stay_good(bundle, tiny_runtime):
    """A batch of 5 in groups of 2 leaves one: two shapes take turns on the same engines."""
    backend, (device,) = made(bundle, "tensorrt")
    for seed in range(3):
        images, noise, table = inputs(bundle, 5, 2, seed=seed)
        wanted = tiny_runtime.backend.triplanes(images, noise, table)
        np.testing.assert_allclose(backend.triplanes(images, noise, table), wanted, atol=1e-4)
    assert len(device.graphs) == 2
    assert sum(entry[0] == "replay" for entry in device.log) == 2 + 2 * 3 + 1
    backend.close()


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
        images, noise, table = inputs(bundle, 1, steps)
        wanted = tiny_runtime.backend.triplanes(images, noise, table)
        for _ in range(2):
            np.testing.assert_allclose(backend.triplanes(images, noise, table), wanted, atol=1e-4)
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


def test_the_loops_graphs_are_opened_for_capture_and_the_renderer_is_not(bundle, monkeypatch):
    asked = {}

    def opened(graph, provider, threads, settings):
        asked[graph.name] = settings.get("enable_cuda_graph")
        return ort.InferenceSession(graph.data)

    monkeypatch.setattr(cuda, "open_session", opened)
    OrtLauncher(bundle, "float32", StandIn())
    assert asked == {"coarse": "1", "diffusion_step": "1", "assemble": "1", "renderer": None}


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


def test_as_many_streams_as_calls_at_once_and_close_waits_for_them(bundle, tiny_runtime):
    backend, devices = made(bundle, "tensorrt")
    images, noise, table = inputs(bundle, 1, 2)
    wanted, results = tiny_runtime.backend.triplanes(images, noise, table), []

    def work():
        results.append(backend.triplanes(images, noise, table))

    for _ in range(20):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(devices) == 1, "one call at a time needs one stream, whatever thread it comes from"
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(devices) <= 4
    running = threading.Thread(target=work)
    running.start()
    while not backend._lent and len(results) < 25:
        pass
    backend.close()
    running.join()
    assert len(results) == 25
    for result in results:
        np.testing.assert_allclose(result, wanted, atol=1e-4)
    assert all(device.closed and not device.memory for device in devices)
    with pytest.raises(runtime.ClosedError):
        backend.triplanes(images, noise, table)


def test_a_shape_outside_the_profile_names_the_input(bundle):
    backend, _ = made(bundle, "tensorrt", largest_batch=99)
    with pytest.raises(runtime.BackendError, match=r"Input 'image' of 'coarse' has shape \(51.*profile goes from"):
        backend.triplanes(*inputs(bundle, 51, 1))


def test_an_engine_that_does_not_run_is_named(bundle):
    backend, (device,) = made(bundle, "tensorrt")
    device.fail = "enqueue"
    with pytest.raises(runtime.BackendError, match="engine of 'coarse' did not run"):
        backend.triplanes(*inputs(bundle, 1, 1))


def test_a_launcher_that_does_not_open_leaves_no_device_behind(bundle):
    device = StandIn()

    def launcher(_):
        raise runtime.BackendError("no context", "...")

    with pytest.raises(runtime.BackendError, match="no context"):
        DeviceBackend("tensorrt", "a test", bundle, "float32", lambda: device, launcher)
    assert device.closed


def test_without_engines_the_command_is_said_and_auto_goes_on_quietly(bundle, tiny_bundle, caplog):
    with pytest.raises(AbsentError, match="no engines of float32") as caught:
        open_tensorrt(bundle, "float32", "asked for")
    assert f"export/to_tensorrt.py --bundle {bundle.path}" in caught.value.remedy
    with caplog.at_level(logging.WARNING), runtime.load(tiny_bundle) as rt:
        assert rt.backend.name == "cpu"
        assert "no engines of float32" in rt.backend.reason
    assert not caplog.text


def test_auto_takes_tensorrt_then_cuda_then_cpu_and_says_why(tiny_bundle, monkeypatch):
    loaded = load_bundle(tiny_bundle)

    def refusing(name):
        def refuse(*_):
            raise AbsentError(f"No {name} here.", "Get one.")

        return refuse

    for name in ("_open_tensorrt", "_open_cuda"):
        monkeypatch.setattr(backends, name, lambda bundle, precision, reason, name=name: (name, reason))
    assert backends.open_backend("auto", loaded, "float32", None) == ("_open_tensorrt", "the first that runs")
    monkeypatch.setattr(backends, "_open_tensorrt", refusing("TensorRT"))
    found = backends.open_backend("auto", loaded, "float32", None)
    assert found == ("_open_cuda", "tensorrt: No TensorRT here; the first that runs")
    monkeypatch.setattr(backends, "_open_cuda", refusing("CUDA"))
    opened = backends.open_backend("auto", loaded, "float32", None)
    assert (opened.name, opened.reason) == ("cpu", "tensorrt: No TensorRT here; cuda: No CUDA here")
    opened.close()


def test_what_a_cpu_alone_runs_is_refused(bundle):
    with pytest.raises(runtime.BackendError, match="int8-cpu runs on a CPU alone"):
        DeviceBackend("cuda", "a test", bundle, "int8-cpu", None, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "did not take its engine"),
        ({"graph": "0" * 64}, "the graph is another one"),
        ({"version": "9.9"}, r"built by version 9\.9, 1\.7 is installed"),
        ({"flavour": "tensorrt"}, "for the flavour tensorrt, not rtx"),
        ({"device": "sm86, sm120"}, "it is for sm86, sm120, not NVIDIA L4, sm89"),
        (None, "the file is damaged"),
    ],
)
def test_engines_for_something_else_are_not_deserialised(bundle, tmp_path, change, said):
    given = []

    class Runtime:
        def __init__(self, _):
            pass

        def deserialize_cuda_engine(self, plan):
            given.append(plan)

    module = SimpleNamespace(Runtime=Runtime, Logger=type("Logger", (), {"WARNING": 2, "__init__": lambda *_: None}))
    flavour = SimpleNamespace(name="rtx", version="1.7", module=module)
    for name in ENGINE_GRAPHS:
        digest = hashlib.sha256(bundle.graph("float32", name).data).hexdigest()
        key = {
            "graph": digest,
            "flavour": "rtx",
            "version": "1.7",
            "device": "sm86, sm89",
            "profile": {},
            "options": {},
        }
        write_engine(engine_path(tmp_path, "float32", name), EngineKey(**(key | (change or {}))), b"plan")
    if change is None:
        path = engine_path(tmp_path, "float32", "coarse")
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(runtime.BackendError, match=said) as caught:
        load_engines(bundle, "float32", tmp_path, flavour, "NVIDIA L4, sm89", "Build them again.")
    assert "'coarse'" in caught.value.cause
    assert caught.value.remedy == "Build them again."
    assert given == ([b"plan"] if change == {} else [])


def test_engines_lie_beside_the_graphs(bundle):
    assert engine_folder(bundle) == bundle.path / "engines"

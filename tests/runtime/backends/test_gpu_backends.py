"""The device backends without a device: on host memory; profiles, engines, threads, what is freed, what is taken."""

import hashlib
import logging
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import runtime
from runtime import backends
from runtime.backends.device.backend import DeviceBackend
from runtime.backends.tensorrt.engine_file import EngineKey, engine_folder, engine_path, write_engine
from runtime.backends.tensorrt.launcher import load_engines
from runtime.bundle import ENGINE_GRAPHS, load_bundle
from runtime.errors import AbsentError
from runtime.geometry.rays import camera_rays
from runtime.rendering.marching import composite, midpoints
from runtime.scene import Scene
from tests.runtime.backends.stand_in import StandIn, inputs, made, stacked


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_device_backend_gives_what_the_cpu_gives(bundle, tiny_runtime, kind, batch):
    backend, devices = made(bundle, kind)
    images, plan, seeds = inputs(bundle, batch, 3)
    wanted = stacked(tiny_runtime.backend.triplanes(images, plan, seeds))
    np.testing.assert_allclose(stacked(backend.triplanes(images, plan, seeds)), wanted, atol=1e-4)
    for found, expected in zip(
        backend.generate(images, plan, seeds), tiny_runtime.backend.generate(images, plan, seeds), strict=True
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


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_a_view_on_a_device_is_every_sample_of_every_ray(bundle, tiny_runtime, pictures, kind):
    backend, (device,) = made(bundle, kind, largest_points=100)
    scene = tiny_runtime.reconstruct(pictures[0])
    camera, size, samples = runtime.Camera.orbit(30, fov=30), (12, 20), 40
    rays = camera_rays(camera, *size)
    distances = midpoints(rays, samples)
    points = rays.origin + distances[..., None] * rays.directions
    rgb, density = tiny_runtime.backend.field(scene.triplane)(points.reshape(-1, 3).astype(np.float32))
    rgb, density = rgb.T.reshape(3, *distances.shape), density.reshape(distances.shape)
    colour, alpha, depth = composite(rgb, density, distances, (rays.far - rays.near) / samples, rays.cosine)
    other = Scene(backend, scene.triplane, 1 << 26, bundle.density_scale, bundle.sensitivity)
    frame = other.render(camera, size, samples, background=(0, 0, 0))
    np.testing.assert_allclose(frame.rgb.reshape(-1, 3), colour.T, atol=1e-4)
    np.testing.assert_allclose(frame.alpha.reshape(-1), alpha, atol=1e-4)
    seen = alpha > 0.1
    np.testing.assert_allclose(frame.depth.reshape(-1)[seen], depth[seen] / alpha[seen], rtol=1e-3)
    parts = -(-int(rays.hits.sum()) // 100)
    assert parts > 1
    assert sum(entry[0] == "upload" for entry in device.log) == 3 + parts, "planes, origin and samples once"
    backend.close()
    assert not device.memory


@pytest.mark.parametrize("samples", [1, 50, 51], ids=["one sample", "in one launch", "more than a launch takes"])
def test_a_scene_on_a_device_is_drawn_as_on_the_cpu(bundle, tiny_runtime, pictures, samples):
    drawn_whole = samples <= 50
    backend, _ = made(bundle, "tensorrt", largest_points=50)
    scene = tiny_runtime.reconstruct(pictures[0])
    other = Scene(backend, scene.triplane, 1 << 26, bundle.density_scale, bundle.sensitivity)
    found, wanted = (s.render(image_size=24, num_samples=samples).rgb for s in (other, scene))
    # The CPU leaves out what does not show, and so does a device where it asks a grid.
    np.testing.assert_allclose(found, wanted, atol=1 / 255 if drawn_whole else 1e-3)
    assert (other._grid is None) == drawn_whole
    backend.close()
    with pytest.raises(runtime.ClosedError):
        other.render(image_size=24, num_samples=samples)


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_what_is_on_the_device_already_is_not_sent_again(bundle, kind):
    backend, (device,) = made(bundle, kind, largest_points=100)
    images, plan, seeds = inputs(bundle, 1, 2)

    def uploads(work):
        device.log.clear()
        result = work()
        return result, sum(entry[0] == "upload" for entry in device.log)

    def view(values, key=None):
        scene = Scene(backend, values, 1 << 26, bundle.density_scale, bundle.sensitivity, key)
        return scene.render(image_size=8, num_samples=20).rgb

    first, count = uploads(lambda: backend.triplanes(images, plan, seeds)[0])
    assert count == 1 + 1 + plan.steps, "the image, the noise and the table's rows"
    drawn, count = uploads(lambda: view(*first))
    assert count == 3, "the planes are where they were made"
    copied, count = uploads(lambda: view(first.values.copy()))
    assert count == 1 + 3, "planes from elsewhere are sent"
    np.testing.assert_array_equal(drawn, copied)
    second, count = uploads(lambda: backend.triplanes(images[:, ::-1], plan, seeds)[0])
    assert count == 1 + plan.steps, "the same noise"
    again, count = uploads(lambda: view(*first))
    assert count == 1 + 3, "others took their place"
    np.testing.assert_array_equal(drawn, again)
    assert np.abs(view(*second) - drawn).max() > 1e-3
    _, count = uploads(lambda: backend.triplanes(images, plan, [seeds[0] + 1]))
    assert count == 1 + 1 + plan.steps, "the noise of another seed"
    backend.close()


def test_captured_graphs_of_other_batches_stay_good(bundle, tiny_runtime):
    """A batch of 5 in groups of 2 leaves one: two shapes take turns on the same engines."""
    backend, (device,) = made(bundle, "tensorrt")
    for seed in range(3):
        images, plan, seeds = inputs(bundle, 5, 2, seed=seed)
        wanted = stacked(tiny_runtime.backend.triplanes(images, plan, seeds))
        np.testing.assert_allclose(stacked(backend.triplanes(images, plan, seeds)), wanted, atol=1e-4)
    assert len(device.graphs) == 2
    assert sum(entry[0] == "replay" for entry in device.log) == 2 + 2 * 3 + 1
    backend.close()


def test_as_many_streams_as_calls_at_once_and_close_waits_for_them(bundle, tiny_runtime):
    backend, devices = made(bundle, "tensorrt")
    images, plan, seeds = inputs(bundle, 1, 2)
    wanted, results = stacked(tiny_runtime.backend.triplanes(images, plan, seeds)), []

    def work():
        results.append(stacked(backend.triplanes(images, plan, seeds)))

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
    while not backend._in_use and len(results) < 25:
        pass
    backend.close()
    running.join()
    assert len(results) == 25
    for result in results:
        np.testing.assert_allclose(result, wanted, atol=1e-4)
    assert all(device.closed and not device.memory for device in devices)
    with pytest.raises(runtime.ClosedError):
        backend.triplanes(images, plan, seeds)


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
        DeviceBackend("tensorrt", bundle, "float32", lambda: device, launcher)
    assert device.closed


def test_without_engines_the_command_is_said_and_auto_goes_on_quietly(bundle, tiny_bundle, caplog):
    with pytest.raises(AbsentError, match="no engines of float32") as caught:
        backends.open_backend("tensorrt", bundle, "float32", None)
    assert f"export/to_tensorrt.py --bundle {bundle.path}" in caught.value.remedy
    with caplog.at_level(logging.WARNING), runtime.load(tiny_bundle) as rt:
        assert rt.backend.name == "cpu"
        assert "no engines of float32" in rt.reason
    assert not caplog.text


def absent(*_):
    raise AbsentError("It is not here.", "Get one.")


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_auto_takes_a_gpu_that_agrees_with_the_cpu(bundle, monkeypatch, kind):
    for name in ("cuda", "tensorrt"):
        monkeypatch.setattr(backends, f"_open_{name}", absent)
    monkeypatch.setattr(backends, f"_open_{kind}", lambda *_: made(bundle, kind)[0])
    opened, reason = backends.open_backend("auto", bundle, "float32", None)
    assert opened.name == kind
    assert "dB from the CPU in a self-check" in reason
    opened.close()


def test_auto_takes_the_cpu_where_a_gpu_gives_something_else(bundle, monkeypatch, caplog):
    wrong, (device,) = made(bundle, "cuda")
    field = wrong.field

    def shifted(triplane, key=None):
        return field(triplane + np.float32(1))

    monkeypatch.setattr(wrong, "field", shifted)
    monkeypatch.setattr(backends, "_open_tensorrt", absent)
    monkeypatch.setattr(backends, "_open_cuda", lambda *_: wrong)
    opened, reason = backends.open_backend("auto", bundle, "float32", None)
    assert opened.name == "cpu"
    assert "cuda: On cuda a small view is" in reason
    assert "where 60 dB are needed" in caplog.text
    assert device.closed, "what is not taken is closed"
    opened.close()


def test_a_named_backend_that_never_ran_on_hardware_says_so_once(bundle, monkeypatch):
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.setattr(backends, "_open_cuda", lambda *_: made(bundle, "cuda")[0])
    with pytest.warns(runtime.UnprovenBackendWarning, match="never run on hardware") as caught:
        backends.open_backend("cuda", bundle, "float32", None)[0].close()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened, reason = backends.open_backend("cuda", bundle, "float32", None)
    assert reason == "asked for"
    opened.close()


def test_what_a_cpu_alone_runs_is_refused(bundle):
    with pytest.raises(runtime.BackendError, match="int8-cpu runs on a CPU alone"):
        DeviceBackend("cuda", bundle, "int8-cpu", None, None)


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

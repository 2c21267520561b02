"""The device loop on a stand-in: the same calls as on a GPU, executed on the CPU and written down."""

import itertools
import threading

import numpy as np
import onnxruntime as ort
import pytest

import runtime
from runtime.backends.device.cuda import ALIGNMENT, Buffer
from runtime.backends.device.sampling_loop import DeviceLoop
from runtime.bundle import load_bundle
from runtime.errors import BackendError
from runtime.wavelet import idwt2d
from tests.runtime.backends.stand_in import StandIn, inputs, stacked


class Launcher:
    """Runs the bundle's graphs in ONNX Runtime on the stand-in's memory."""

    def __init__(self, bundle, device, poison=None):
        self.device, self.poison, self.calls, self.closed, self.bound = device, poison, 0, False, 0
        self.graphs = {n: bundle.graph("float32", n) for n in ("coarse", "diffusion_step", "assemble")}
        self.sessions = {n: ort.InferenceSession(g.data) for n, g in self.graphs.items()}

    def bind(self, name, buffers):
        graph = self.graphs[name]
        self.bound += 1
        assert set(buffers) == {s.name for s in (*graph.inputs, *graph.outputs)}, "bound by name, all of them"
        for spec in (*graph.inputs, *graph.outputs):
            fixed = zip(spec.shape, buffers[spec.name].shape, strict=True)
            assert all(isinstance(size, str) or size == actual for size, actual in fixed), spec.name
        device = self.device

        def work():
            feeds = {s.name: device.view(buffers[s.name]) for s in graph.inputs}
            assert all(np.isfinite(value).all() for value in feeds.values()) or self.poison, "read before written"
            for spec, value in zip(graph.outputs, self.sessions[name].run(None, feeds), strict=True):
                device.view(buffers[spec.name])[:] = value
            if name == "diffusion_step":
                self.calls += 1
                if self.poison is not None and feeds["row"][0] == self.poison:
                    device.view(buffers["next"])[..., 0] = np.nan

        def launch():
            if device.recording is None:
                device.log.append(("launch", name, {k: b.address for k, b in buffers.items()}))
            device.submit(work)

        return launch

    def capture(self, launches):
        return self.device.capture(lambda: [launch() for launch in launches])

    def replay(self, captured):
        self.device.replay(captured)

    def forget(self, captured):
        self.device.forget(captured)

    def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


def made(bundle, poison=None):
    device = StandIn()
    launcher = Launcher(bundle, device, poison)
    width = launcher.graphs["coarse"].outputs[1].shape[2]
    return DeviceLoop(device, launcher, bundle.channels, bundle.resolution, width), device, launcher


def expected(bundle, tiny_bundle, images, plan, seeds):
    with runtime.load(tiny_bundle, backend="cpu") as rt:
        ll, standard = rt.backend.generate(images, plan, seeds)
    mean, std = (a[..., None, None] for a in bundle.detail_statistics)
    return idwt2d(ll, *np.split(standard * std + mean, 3, axis=2)), ll, standard


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "ddpm"])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 4), (3, 5)])
def test_the_loop_gives_what_the_cpu_backend_gives(bundle, tiny_bundle, sampler, batch, steps):
    loop, device, _ = made(bundle)
    for seed in (0, 5):
        images, plan, seeds = inputs(bundle, batch, steps, sampler, seed)
        wanted, ll, standard = expected(bundle, tiny_bundle, images, plan, seeds)
        np.testing.assert_allclose(stacked(loop.triplanes(images, plan, seeds)), wanted, atol=1e-4)
        found = loop.bands(images, plan, seeds)
        np.testing.assert_allclose(found[0], ll, atol=1e-4)
        np.testing.assert_allclose(found[1], standard, atol=1e-4)
    loop.close()
    assert not device.memory


def test_calls_come_in_order_and_buffers_swap(bundle):
    loop, device, _ = made(bundle)
    loop.triplanes(*inputs(bundle, 1, 4))
    kinds = [entry[0] for entry in device.log]
    launches = [entry for entry in device.log if entry[0] == "launch"]
    assert [name for _, name, _ in launches] == ["coarse", *["diffusion_step"] * 4, "assemble"]
    first, last = kinds.index("launch"), len(kinds) - 1 - kinds[::-1].index("launch")
    assert set(kinds[first : last + 1]) == {"launch"}, "nothing but launches inside the loop"
    assert kinds[last + 1 :] == ["download", "capture", "replay", "download"]
    steps = [buffers for _, name, buffers in launches if name == "diffusion_step"]
    for before, after in itertools.pairwise(steps):
        assert after["noisy"] == before["next"]
        assert after["previous"] == before["denoised"]
        assert after["next"] not in (after["noisy"], after["previous"], after["noise"])
        assert after["row"] == before["row"] + ALIGNMENT
    assert launches[-1][2]["details"] == steps[-1]["next"]
    assert steps[0]["noisy"] == steps[0]["noise"], "the first step reads the noise itself"


def test_a_second_run_is_three_uploads_a_replay_and_a_download(bundle):
    loop, device, launcher = made(bundle)
    loop.triplanes(*inputs(bundle, 2, 3))
    device.log.clear()
    calls = launcher.calls
    loop.triplanes(*inputs(bundle, 2, 3, seed=9))
    kinds = [entry[0] for entry in device.log]
    assert kinds == ["upload"] * (1 + 1 + 3) + ["replay", "download"]
    assert launcher.calls == calls + 3
    assert launcher.bound == 1 + 3 + 1, "bound once, run three times"
    assert loop.fallback is None


def test_kept_shapes_are_bounded_and_given_back(bundle):
    loop, device, launcher = made(bundle)
    for steps in (1, 2, 3, 4, 5, 6):
        loop.triplanes(*inputs(bundle, 1, steps))
    assert len(device.graphs) == 4
    assert len(device.memory) == 4 * 10
    loop.triplanes(*inputs(bundle, 1, 3))
    assert len(device.graphs) == 4
    loop.close()
    assert not device.memory
    assert not device.graphs
    assert device.closed
    assert launcher.closed


@pytest.mark.parametrize(("fail", "said"), [("capture", "capture failed: CUDA says"), ("replay", "another result")])
def test_where_capture_fails_the_loop_stays_plain_and_says_so(bundle, tiny_bundle, caplog, fail, said):
    loop, device, _ = made(bundle)
    device.fail = fail
    images, plan, seeds = inputs(bundle, 1, 2)
    device.spoiled = loop._buffers_for(1, 1, 2).buffers["triplane"]
    wanted = expected(bundle, tiny_bundle, images, plan, seeds)[0]
    for _ in range(2):
        np.testing.assert_allclose(stacked(loop.triplanes(images, plan, seeds)), wanted, atol=1e-4)
    assert said in loop.fallback
    assert said in caplog.text
    assert caplog.text.count("without a captured graph") == 1
    assert not device.graphs


@pytest.mark.parametrize("bad", [0, 2])
def test_values_that_are_not_finite_are_named_with_their_step(bundle, bad):
    images, plan, seeds = inputs(bundle, 1, 4)
    loop, _, _ = made(bundle, poison=np.float32(plan.table[bad, 0]))
    with pytest.raises(BackendError, match=f"Step {bad + 1} of 4 gave NaN or infinity"):
        loop.triplanes(images, plan, seeds)


def test_running_out_of_memory_gives_back_what_was_taken(bundle):
    loop, device, _ = made(bundle)
    device.fail = "allocate"
    with pytest.raises(BackendError, match="out of memory"):
        loop.triplanes(*inputs(bundle, 1, 2))
    assert not device.memory


@pytest.mark.parametrize("error", [ValueError("no such tensor"), KeyboardInterrupt()])
def test_a_shape_whose_binding_breaks_is_not_kept(bundle, tiny_bundle, error, monkeypatch):
    loop, device, launcher = made(bundle)
    images, plan, seeds = inputs(bundle, 1, 2)

    def breaking(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(launcher, "bind", breaking)
        with pytest.raises(type(error)):
            loop.triplanes(images, plan, seeds)
    assert not device.memory
    wanted = expected(bundle, tiny_bundle, images, plan, seeds)[0]
    np.testing.assert_allclose(stacked(loop.triplanes(images, plan, seeds)), wanted, atol=1e-4)


def test_closing_goes_on_after_a_buffer_that_cannot_be_freed(bundle, monkeypatch):
    loop, device, launcher = made(bundle)
    loop.triplanes(*inputs(bundle, 1, 1))
    free, first = device.free, next(iter(device.memory))

    def failing(address):
        free(address)
        if address == first:
            raise BackendError("CUDA says no.", "...")

    monkeypatch.setattr(device, "free", failing)
    with pytest.raises(BackendError, match="CUDA says no"):
        loop.close()
    assert device.closed
    assert launcher.closed
    assert not device.memory
    assert not device.graphs


def test_loops_of_several_threads_share_nothing(bundle, tiny_bundle):
    images, plan, seeds = inputs(bundle, 1, 3)
    wanted, results = expected(bundle, tiny_bundle, images, plan, seeds)[0], []

    def work():
        loop, _, _ = made(bundle)
        results.extend(stacked(loop.triplanes(images, plan, seeds)) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    for result in results:
        np.testing.assert_allclose(result, wanted, atol=1e-4)


def test_a_buffer_knows_its_bytes_and_its_parts():
    buffer = Buffer(512, (4, 2, 3))
    assert buffer.size == 96
    assert buffer.part(2, 256) == Buffer(1024, (2, 3))

"""What needs a CUDA device: each backend that is present, against the CPU; captured graphs, threads, memory given back.

`pytest -m gpu` runs these alone; where there is no device they are skipped, and say why. With REQUIRE_GPU set in the
environment they fail instead.
"""

import gc
import os
import shutil
import threading

import numpy as np
import pytest

import runtime
from export.engine_builder import BuildError
from export.to_onnx import export_bundle
from export.to_tensorrt import build_engines
from runtime.backends.device.cuda import gpu_name
from runtime.backends.self_check import example_images, psnr
from runtime.backends.tensorrt.engine_file import engine_folder
from runtime.backends.tensorrt.installation import find_flavour
from runtime.bundle import PARITY_DB, load_bundle
from runtime.errors import AbsentError

pytestmark = pytest.mark.gpu
PRECISIONS = ("float32", "float16", "int8")
BATCHES = (1, 2, 4)


def _why_no_gpu():
    try:
        gpu_name()
    except runtime.BackendError as error:
        return error.cause
    return None


@pytest.fixture(scope="module", autouse=True)
def _gpu():
    why = _why_no_gpu()
    if why:
        (pytest.fail if os.environ.get("REQUIRE_GPU") else pytest.skip)(why)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The shipped checkpoint in every precision that a GPU runs, with engines where a TensorRT is installed."""
    from model import WaveletTriplaneDiffusion

    model = WaveletTriplaneDiffusion.load("model/checkpoints/small.safetensors").eval()
    out = tmp_path_factory.mktemp("gpu") / "bundle"
    export_bundle(model, out, "small", trained=True, precisions=PRECISIONS)
    try:
        flavour = find_flavour("auto")
    except runtime.BackendError:
        return out
    gpu = gpu_name().split(", ")[-1]
    loaded = load_bundle(out)
    try:
        list(build_engines(loaded, engine_folder(loaded), flavour, PRECISIONS, targets=(gpu,)))
    except BuildError as error:
        # RTX knows no data-centre GPUs: what needs engines is skipped for their absence, the rest runs.
        if "Unknown target" not in str(error):
            raise
    return out


def opened(bundle, backend, precision="float32"):
    try:
        return runtime.load(bundle, backend=backend, precision=precision)
    except AbsentError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_row_of_a_batch_is_drawn_as_on_the_cpu(bundle, backend, precision):
    pictures = example_images(max(BATCHES), 256)
    camera = runtime.Camera.orbit(azimuth=50)
    with opened(bundle, backend, precision) as rt, runtime.load(bundle, backend="cpu", precision="float32") as cpu:
        for batch in BATCHES:
            scenes = rt.reconstruct(pictures[:batch], steps=4, seed=3, background="keep")
            for scene, image in zip(scenes, pictures, strict=False):
                wanted = cpu.reconstruct(image, steps=4, seed=3, background="keep").render(camera, 64).rgb
                assert psnr(scene.render(camera, 64).rgb, wanted, peak=1.0) >= PARITY_DB[precision]


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_every_run_gives_the_same_bytes_captured_where_it_can_be(bundle, backend):
    with opened(bundle, backend) as rt:
        image = example_images(1, 256)[0]
        first = rt.reconstruct(image, steps=4, background="keep").triplane
        assert rt.backend.fallback is None
        for _ in range(3):
            np.testing.assert_array_equal(rt.reconstruct(image, steps=4, background="keep").triplane, first)


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_a_replay_reads_its_inputs_whatever_thread_asks(bundle, backend):
    first, second = example_images(2, 256)
    with opened(bundle, backend) as rt, runtime.load(bundle, backend="cpu") as cpu:
        rt.reconstruct(first, steps=4, seed=1, background="keep")
        wanted, found = cpu.reconstruct(second, steps=4, seed=2, background="keep").render().rgb, []
        thread = threading.Thread(
            target=lambda: found.append(rt.reconstruct(second, steps=4, seed=2, background="keep"))
        )
        thread.start()
        thread.join()
        found.append(rt.reconstruct(second, steps=4, seed=2, background="keep"))
        for scene in found:
            assert psnr(scene.render().rgb, wanted, peak=1.0) >= PARITY_DB["float32"]


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_threads_do_not_disturb_one_another(bundle, backend):
    with opened(bundle, backend) as rt:
        pictures = example_images(3, 256)
        wanted = [rt.reconstruct(image, steps=2, background="keep").triplane for image in pictures]
        found = [None] * 3

        def work(index):
            for _ in range(3):
                found[index] = rt.reconstruct(pictures[index], steps=2, background="keep").triplane

        threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_close_gives_the_memory_back(bundle, backend):
    from cuda.bindings import runtime as cuda

    def free():
        status, free, _ = cuda.cudaMemGetInfo()
        assert int(status) == 0
        return free

    def once():
        with opened(bundle, backend) as rt:
            rt.render(example_images(1, 256)[0], image_size=32)
        gc.collect()

    # Libraries keep what they load at their first use.
    once()
    before = free()
    for _ in range(3):
        once()
    assert before - free() < 32 << 20


def test_engines_of_another_gpu_are_refused(bundle, tmp_path):
    loaded = load_bundle(shutil.copytree(bundle, tmp_path / "bundle"))
    try:
        flavour = find_flavour("rtx")
    except runtime.BackendError as error:
        pytest.skip(str(error))
    other = "sm86" if not gpu_name().endswith("sm86") else "sm89"
    list(build_engines(loaded, engine_folder(loaded), flavour, ["float32"], targets=(other,)))
    with pytest.raises(runtime.BackendError, match=f"it is for {other}"):
        runtime.load(loaded.path, backend="tensorrt")

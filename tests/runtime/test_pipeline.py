"""The runtime as its users call it: batches, seeds, threads, determinism, lifetime, bad arguments."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.wavelet import idwt2d

CHAIR = Path(__file__).parents[2] / "examples" / "chair.png"


def triplanes(scenes):
    return np.stack([scene.triplane for scene in scenes])


def test_render_gives_pixels_and_reconstruct_a_scene(tiny_runtime, pictures):
    picture = tiny_runtime.render(pictures[0], image_size=24, num_samples=16)
    assert picture.shape == (24, 24, 3)
    assert picture.dtype == np.uint8
    scene = tiny_runtime.reconstruct(pictures[0])
    assert scene.triplane.shape == (3, 8, 32, 32)
    assert scene.triplane.dtype == np.float32
    frame = scene.render(image_size=24, num_samples=16)
    np.testing.assert_array_equal(frame.to_uint8(), picture)
    assert frame.rgb.min() >= 0
    assert frame.rgb.max() <= 1
    assert frame.alpha.max() > 0.5, "an untrained object must not be blank"


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "euler", "ddpm"])
def test_a_batch_equals_its_items_one_by_one(tiny_runtime, pictures, sampler):
    seeds = [5, 6, 7]
    together = triplanes(tiny_runtime.reconstruct(pictures[:3], 3, seeds, sampler))
    alone = triplanes([tiny_runtime.reconstruct(p, 3, s, sampler) for p, s in zip(pictures, seeds, strict=False)])
    np.testing.assert_array_equal(together, alone)


def test_a_batch_permuted_or_with_another_neighbour_keeps_each_item(tiny_runtime, pictures):
    expected = triplanes(tiny_runtime.reconstruct(pictures, seed=[1, 2, 3, 4]))
    order = [2, 0, 3, 1]
    permuted = tiny_runtime.reconstruct([pictures[i] for i in order], seed=[i + 1 for i in order])
    np.testing.assert_array_equal(triplanes(permuted), expected[order])
    changed = tiny_runtime.reconstruct([pictures[0], 255 - pictures[1], *pictures[2:]], seed=[1, 2, 3, 4])
    same = [0, 2, 3]
    np.testing.assert_array_equal(triplanes(changed)[same], expected[same])
    assert np.abs(triplanes(changed)[1] - expected[1]).max() > 1e-3


def test_a_batch_larger_than_one_group_keeps_each_item(tiny_runtime, pictures):
    many = tiny_runtime.render([pictures[i % 4] for i in range(11)], image_size=12, num_samples=8, seed=list(range(11)))
    last = tiny_runtime.render(pictures[2], image_size=12, num_samples=8, seed=10)
    np.testing.assert_array_equal(many[10], last)


def test_two_runs_and_eight_threads_give_the_same_bytes(tiny_bundle, pictures):
    def draw(rt, index):
        return rt.render(pictures[index % 4], image_size=20, num_samples=16, seed=index % 4).tobytes()

    with runtime.load(tiny_bundle) as first, runtime.load(tiny_bundle) as second:
        expected = [draw(first, index) for index in range(4)]
        assert expected == [draw(second, index) for index in range(4)]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda index: draw(first, index), range(32)))
    assert results == expected * 8


def test_the_seed_and_the_picture_change_the_object(tiny_runtime, pictures):
    base = tiny_runtime.reconstruct(pictures[0], seed=0).triplane
    assert np.abs(tiny_runtime.reconstruct(pictures[0], seed=1).triplane - base).max() > 1e-3
    assert np.abs(tiny_runtime.reconstruct(pictures[1], seed=0).triplane - base).max() > 1e-3


def test_an_int_seed_serves_every_item(tiny_runtime, pictures):
    same = triplanes(tiny_runtime.reconstruct([pictures[0]] * 2, seed=9))
    np.testing.assert_array_equal(same[0], same[1])


def test_the_number_of_threads_does_not_change_the_bytes(tiny_bundle, pictures):
    with runtime.load(tiny_bundle, threads=1) as one, runtime.load(tiny_bundle, threads=2) as two:
        np.testing.assert_array_equal(one.reconstruct(pictures[0]).triplane, two.reconstruct(pictures[0]).triplane)


def test_the_triplane_is_the_inverse_transform_of_its_bands(tiny_runtime, pictures, monkeypatch):
    seen = {}
    generate = tiny_runtime.backend.generate
    monkeypatch.setattr(tiny_runtime.backend, "generate", lambda *args: seen.setdefault("bands", generate(*args)))
    scene = tiny_runtime.reconstruct(pictures[0])
    ll, standard = (band[0] for band in seen["bands"])
    mean, std = tiny_runtime.bundle.detail_statistics
    lh, hl, hh = np.split(standard * std[..., None, None] + mean[..., None, None], 3, axis=1)
    np.testing.assert_allclose(scene.triplane, idwt2d(ll, lh, hl, hh), atol=1e-6)


def test_stage_times_are_recorded_on_request(tiny_runtime, pictures):
    with runtime.record_times() as times:
        tiny_runtime.render(pictures[0], image_size=8, num_samples=4, steps=3)
    assert {name: len(seconds) for name, seconds in times.items()} == {
        "image": 1, "coarse": 1, "step": 3, "idwt": 1, "render": 1,
    }  # fmt: skip
    assert all(second > 0 for seconds in times.values() for second in seconds)


def test_a_closed_runtime_says_so(tiny_bundle, pictures):
    with runtime.load(tiny_bundle) as rt:
        scene = rt.reconstruct(pictures[0])
        drawn = rt.reconstruct(pictures[0])
        drawn.render(image_size=100)
    rt.close()
    with pytest.raises(runtime.ClosedError, match="closed"):
        drawn.render(image_size=100)  # in several parts, on threads that are gone
    with pytest.raises(runtime.ClosedError, match="closed"):
        rt.render(pictures[0])
    with pytest.raises(runtime.ClosedError, match="closed"):
        scene.render()


def test_a_triplane_from_elsewhere_is_checked_and_copied(tiny_runtime, pictures):
    scene = tiny_runtime.reconstruct(pictures[0])
    elsewhere = scene.triplane.astype(np.float64)
    again = tiny_runtime.scene(elsewhere)
    elsewhere[:] = 0
    np.testing.assert_array_equal(again.render(image_size=16).rgb, scene.render(image_size=16).rgb)
    with pytest.raises(runtime.OptionError, match="triplanes have shape"):
        tiny_runtime.scene(scene.triplane[:2])


def test_scenes_cannot_be_changed_behind_the_runtime(tiny_runtime, pictures):
    with pytest.raises(ValueError, match="read-only"):
        tiny_runtime.reconstruct(pictures[0]).triplane[0] = 0


def test_the_module_renders_with_the_default_bundle():
    drawn = runtime.render(CHAIR, image_size=32, num_samples=24)
    assert drawn.shape == (32, 32, 3)
    assert drawn.std() > 10, "the default bundle must not draw a blank picture"
    with pytest.warns(runtime.UntrainedWarning) if not _default_is_trained() else _nothing():
        runtime.load().close()


def _default_is_trained():
    from runtime.bundle import load_bundle

    return load_bundle(runtime.default_bundle()).trained


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"steps": 0}, runtime.OptionError, "steps must be a whole number from 1 to 100, not 0"),
        ({"steps": 101}, runtime.OptionError, "1 to 100"),
        ({"sampler": "heun"}, runtime.OptionError, "ddim, dpmpp_2m, euler, ddpm"),
        ({"sampler": ""}, runtime.OptionError, "ddim, dpmpp_2m, euler, ddpm"),
        ({"seed": -1}, runtime.OptionError, "seed"),
        ({"seed": 1.5}, runtime.OptionError, "seed"),
        ({"seed": None}, runtime.OptionError, "seed"),
        ({"seed": [1, 2]}, runtime.OptionError, "2 seeds for 1"),
        ({"image_size": 0}, runtime.OptionError, "image_size"),
        ({"num_samples": 0}, runtime.OptionError, "num_samples"),
        ({"camera": "front"}, runtime.CameraError, "no camera"),
    ],
)
def test_bad_arguments_are_refused(tiny_runtime, pictures, options, error, reason):
    with pytest.raises(error, match=reason) as caught:
        tiny_runtime.render(pictures[0], **options)
    assert caught.value.remedy


def test_an_empty_list_is_refused(tiny_runtime):
    with pytest.raises(runtime.ImageError, match="empty"):
        tiny_runtime.render([])


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"backend": "quantum"}, runtime.BackendError, "auto, tensorrt, cuda, openvino, cpu"),
        ({"precision": "int3"}, runtime.OptionError, "it has float32"),
        ({"threads": 0}, runtime.OptionError, "threads"),
        ({"memory_limit": 5}, runtime.OptionError, "16 MiB"),
    ],
)
def test_bad_settings_are_refused(tiny_bundle, options, error, reason):
    with pytest.raises(error, match=reason) as caught:
        runtime.load(tiny_bundle, **options)
    assert caught.value.remedy


def test_cuda_without_a_gpu_is_an_error_and_not_the_cpu(tiny_bundle):
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has a CUDA provider")
    with pytest.raises(runtime.BackendError, match="no CUDA provider") as caught:
        runtime.load(tiny_bundle, backend="cuda")
    assert "pip install" in caught.value.remedy
    with runtime.load(tiny_bundle) as rt:
        assert rt.backend.name == "cpu"
        assert "CUDA" in rt.reason

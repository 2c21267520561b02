"""OpenVINO as the networks' place: the same pictures, every precision, several threads, and what it refuses."""

import sys
import threading

import numpy as np
import onnxruntime as ort
import pytest
import torch

import runtime
from export.fast_modules import TRANSLATIONS, LateUpBlock, by_group_norm
from model.layers import UpBlock
from runtime.backends.openvino import _norms_by_channel
from runtime.backends.self_check import psnr
from runtime.bundle import PARITY_DB


@pytest.mark.parametrize("precision", ["float32", "int8", "int8-cpu"])
def test_pictures_are_those_of_the_cpu_backend(tiny_variants, pictures, precision):
    with (
        runtime.load(tiny_variants, backend="openvino", precision=precision) as rt,
        runtime.load(tiny_variants, backend="cpu", precision="float32") as cpu,
    ):
        for batch in (1, 3):
            found = rt.render(pictures[:batch], steps=3, image_size=32)
            wanted = cpu.render(pictures[:batch], steps=3, image_size=32)
            for a, b in zip(found, wanted, strict=True):
                # Pictures of 8 bits: what rounding leaves of 60 dB is less.
                assert psnr(a / 255, b / 255, peak=1.0) >= min(PARITY_DB[precision], 50)


def test_results_outlive_the_next_run_and_threads_agree(tiny_variants, pictures):
    with runtime.load(tiny_variants, backend="openvino", precision="float32") as rt:
        first = rt.reconstruct(pictures[0])
        kept = first.triplane.copy()
        found = []

        def work():
            rt.reconstruct(pictures[1])
            found.append(rt.reconstruct(pictures[0]).triplane)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(first.triplane, kept)
        assert len(found) == 3
        for triplane in found:
            np.testing.assert_allclose(triplane, kept, atol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_a_norm_by_channels_is_group_normalisation(offset):
    """Also where the mean is far larger than what varies."""
    import onnx
    import openvino
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    values = {"scale": rng.normal(1, 0.3, 24), "shift": rng.normal(0, 1, 24)}
    graph = helper.make_graph(
        [helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=4, epsilon=1e-3)],
        "norm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 24, 9, 7])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 24, 9, 7])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    x = (rng.normal(0, 1, (2, 24, 9, 7)) + offset * rng.normal(1, 0.1, (1, 24, 1, 1))).astype(np.float32)
    (wanted,) = ort.InferenceSession(data).run(None, {"x": x})
    network = openvino.Core().read_model(data)
    _norms_by_channel(network)
    assert "GroupNormalization" not in {node.get_type_name() for node in network.get_ops()}
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled({"x": x})[0], wanted, atol=2e-4)


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_planes_that_are_doubled_late_keep_their_digits_in_bfloat16(offset):
    """Also where the mean is far larger than what varies: int8 computes its norms in what OpenVINO finds fastest."""
    import openvino

    torch.manual_seed(0)
    block = UpBlock(16, 16, 16).eval()
    x, finer = torch.randn(1, 16, 12, 12) + offset, torch.randn(1, 16, 24, 24) + offset
    with torch.no_grad():
        wanted = block(x, finer=finer).numpy()
        late = LateUpBlock(block, by_group_norm)
        program = torch.onnx.export(
            late, (x, None, finer), dynamo=True, opset_version=21, custom_translation_table=TRANSLATIONS, verbose=False
        )
    network = openvino.Core().read_model(program.model_proto.SerializeToString())
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    found = compiled([x.numpy(), finer.numpy()])[0]
    assert np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std() < 0.06


def test_without_openvino_the_extra_is_named(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(runtime.BackendError, match="OpenVINO cannot be imported") as caught:
        runtime.load(tiny_bundle, backend="openvino")
    assert "[openvino]" in caught.value.remedy

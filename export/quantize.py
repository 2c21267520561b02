"""int8 by quantise/dequantise pairs around the convolutions, calibrated over images and timesteps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from runtime.array_types import Array
from runtime.diffusion.plan import SamplingPlan, run_sampler
from runtime.diffusion.schedule import cosine_schedule
from runtime.geometry.cameras import Camera

# Few steps visit other noise levels than many: both are calibrated for.
_STEPS = (1, 4, 10)
# Neither training nor evaluation draws these.
_FIRST_SEED, _IMAGES = 800_000_000, 6
Feeds = dict[str, Array]


def calibration_images(size: int) -> Array:
    """Procedural objects as the canonical camera sees them, (N, 3, size, size) in [-1, 1]."""
    from model.training.data.drawing import over_white, render_views
    from model.training.procedural.objects import make_objects

    views = render_views(make_objects(list(range(_FIRST_SEED, _FIRST_SEED + _IMAGES))), [Camera.orbit()], size, 1)
    return np.ascontiguousarray((over_white(views[:, 0]) * 2 - 1).transpose(0, 3, 1, 2))


def calibration_feeds(protos: Mapping[str, onnx.ModelProto], images: Array, timesteps: int) -> dict[str, list[Feeds]]:
    """What the graphs with convolutions are fed while some images are reconstructed.

    Args:
        protos: the graphs in float32, by name.
        images: (N, 3, S, S) in [-1, 1].
        timesteps: length of the noise schedule.

    Returns:
        By graph, one dict a call.
    """
    coarse, step = (
        ort.InferenceSession(protos[name].SerializeToString(), providers=["CPUExecutionProvider"])
        for name in ("coarse", "diffusion_step")
    )
    schedule = cosine_schedule(timesteps)
    channels, side = step.get_inputs()[0].shape[2:4]
    feeds: dict[str, list[Feeds]] = {"coarse": [], "diffusion_step": []}
    for seed, image in enumerate(images):
        feeds["coarse"].append({"image": image[None]})
        _, condition = coarse.run(None, feeds["coarse"][-1])
        steps = min(_STEPS[seed % len(_STEPS)], timesteps)
        plan = SamplingPlan.make("ddim", steps, schedule, channels // 3, side)

        def recorded(noisy: Array, previous: Array, noise: Array, row: Array, condition: Array) -> tuple[Array, Array]:
            call = {"noisy": noisy, "condition": condition, "previous": previous, "noise": noise, "row": row}
            feeds["diffusion_step"].append(call)
            state, denoised = step.run(None, call)
            return state, denoised

        run_sampler(plan.table.astype(np.float32), plan.noise([seed]), partial(recorded, condition=condition))
    return feeds


def to_int8(proto: onnx.ModelProto, feeds: Sequence[Feeds], cpu_only: bool) -> onnx.ModelProto:
    """Quantises the convolutions, weights by channel.

    Args:
        proto: a graph in float32.
        feeds: what it is fed, for the ranges of its activations.
        cpu_only: unsigned activations with zero points and quantised biases, faster on a CPU; TensorRT parses the
            symmetric signed form alone.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[Feeds] = iter(feeds)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self.rest, None)

    form: dict[str, Any] = {"WeightSymmetric": True}
    if not cpu_only:
        # TensorRT fuses what comes after a convolution: rounding its output to int8 would only cost accuracy.
        form |= {"ActivationSymmetric": True, "QuantizeBias": False, "OpTypesToExcludeOutputQuantization": ["Conv"]}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_beside_transpose(proto),
            per_channel=True,
            activation_type=QuantType.QUInt8 if cpu_only else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options=form,
        )
        quantised = onnx.load(target)
    del quantised.graph.value_info[:]
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _beside_transpose(proto: onnx.ModelProto) -> list[str]:
    """Convolutions next to a transposition: ONNX Runtime 1.32 moves the quantisation through it, and then fails."""
    producer = {output: node for node in proto.graph.node for output in node.output}
    transposed = {name for node in proto.graph.node if node.op_type == "Transpose" for name in node.input}
    found = []
    for node in proto.graph.node:
        before = producer.get(node.input[0]) if node.op_type == "Conv" else None
        if node.op_type == "Conv" and (node.output[0] in transposed or (before and before.op_type == "Transpose")):
            found.append(node.name)
    return found

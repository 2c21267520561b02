"""The graphs: which part of the model each holds, its inputs and outputs, and how it becomes ONNX.

coarse          image -> triplane_ll, condition (all that the denoiser needs and no step changes)
diffusion_step  noisy, condition, previous, noise, row -> next, denoised (all planes, the sampler's update inside)
assemble        triplane_ll, details -> triplane: the inverse wavelet transform, for a GPU
renderer        triplane, points -> rgb, density
view            triplane, origin, rays, samples -> drawn: every sample of every ray, for a GPU
decoder         features -> rgb, density: what of the renderer follows the reading of the planes, for the CPU, whose
                ONNX Runtime reads planes slowly

The last three leave out the decoder's units that can only give 0.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import Tensor, nn

from model import WaveletTriplaneDiffusion
from model.config import network_width
from model.renderer import quadrature
from runtime.bundle import TensorSpec
from runtime.diffusion.samplers import COLUMNS, sampler_table, trailing_timesteps
from runtime.diffusion.schedule import cosine_schedule

from .fast_modules import TRANSLATIONS
from .pruning import pruned

OPSET = 21
# The exporter warns of operators of packages that are not installed and that no graph here uses.
logging.getLogger("torch.onnx").setLevel(logging.ERROR)
_EXAMPLE_ROWS = sampler_table("dpmpp_2m", *cosine_schedule(1000), trailing_timesteps(1000, 4))


class _Coarse(nn.Module):
    def __init__(self, model: WaveletTriplaneDiffusion) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.predict_ll(image)


class _DiffusionStep(nn.Module):
    def __init__(self, model: WaveletTriplaneDiffusion) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, noisy: Tensor, condition: Tensor, previous: Tensor, noise: Tensor, row: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.model.step(noisy, condition, previous, noise, row)


class _Assemble(nn.Module):
    def __init__(self, model: WaveletTriplaneDiffusion) -> None:
        super().__init__()
        self.model = model

    def forward(self, triplane_ll: Tensor, details: Tensor) -> tuple[Tensor]:
        return (self.model.reconstruct_planes(triplane_ll, self.model.in_units(details)),)


class _Renderer(nn.Module):
    def __init__(self, model: WaveletTriplaneDiffusion) -> None:
        super().__init__()
        self.renderer = pruned(model.renderer)

    def forward(self, triplane: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        return self.renderer(triplane, points)


class _View(nn.Module):
    """All of drawing in one graph.

    Quantities are rows, as in `runtime.rendering.marching`: `rays` has those of `ray_table`, `drawn` premultiplied
    colour, alpha and mean depth; `samples` has the middle of each interval, in intervals.
    """

    def __init__(self, model: WaveletTriplaneDiffusion) -> None:
        super().__init__()
        self.renderer = pruned(model.renderer)

    def forward(self, triplane: Tensor, origin: Tensor, rays: Tensor, samples: Tensor) -> tuple[Tensor]:
        near, step, cosine = rays[3:, :, None].unbind()
        distances = near + samples * step
        points = origin + distances[..., None] * rays[:3].T[:, None]
        rgb, density = self.renderer(triplane[None], points.flatten(0, 1)[None])
        weights, optical = quadrature(density.view(distances.shape), step)
        alpha = -torch.expm1(-optical)
        colour = (weights[..., None] * rgb[0].unflatten(0, distances.shape)).sum(1)
        # Of the same weights, whose rounding then is the same above and below.
        depth = cosine * (weights * distances).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1e-12)
        return (torch.cat([colour, alpha, depth], dim=1).T,)


class _Decoder(nn.Module):
    """As `TriplaneRenderer.decode`, of matrices instead of batches and with both heads in one: ONNX Runtime then has a
    product, its bias and what follows in one operation, and takes a fifth less time.
    """

    def __init__(self, model: WaveletTriplaneDiffusion) -> None:
        super().__init__()
        renderer = pruned(model.renderer)
        self.mlp, self.activated = renderer.mlp, renderer.activated
        self.heads = nn.Linear(renderer.colour.in_features, 4, device=renderer.colour.weight.device)
        with torch.no_grad():
            for name in ("weight", "bias"):
                joined = torch.cat([getattr(head, name) for head in (renderer.colour, renderer.density)])
                getattr(self.heads, name).copy_(joined)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        found = self.heads(self.mlp(features.flatten(0, 1)))
        # A row of densities: of a column ONNX Runtime takes each number as a run of its own.
        colour, density = (a.unflatten(0, features.shape[:2]) for a in self.activated(found[:, :3], found[:, 3]))
        return colour, density[..., None]


@dataclass(frozen=True)
class GraphDefinition:
    """One graph to export: the module that computes it, and its inputs and outputs as the manifest will name them."""

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def example(self, sizes: dict[str, int], seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs for given dynamic sizes: uniform in [-1, 1]; a row of a real sampler's table; rays as they may be."""
        generator = torch.Generator().manual_seed(seed)

        def values(spec: TensorSpec) -> Tensor:
            if spec.name == "row":
                return torch.tensor(_EXAMPLE_ROWS[seed % len(_EXAMPLE_ROWS)], dtype=torch.float32)
            shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
            found = torch.rand(shape, generator=generator) * 2 - 1
            if spec.name == "rays":  # No interval is longer than what is left of the cube, or of less than no length.
                found[3:] = found[3:].abs() * torch.tensor([[1.0], [0.1], [1.0]])
            return found

        return tuple(values(spec) for spec in self.inputs)


def graph_definitions(model: WaveletTriplaneDiffusion) -> dict[str, GraphDefinition]:
    """Returns the graphs of a model by name, one for each of `runtime.bundle.GRAPHS`."""
    config = model.config
    c, r, width = config.triplane_channels, config.resolution, network_width(config.triplane_channels)

    def spec(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name, "float32", shape)

    bands = ("batch", 3, 3 * c, r, r)
    condition = spec("condition", "batch", 3, width, r, r)
    definitions = (
        GraphDefinition(
            "coarse",
            _Coarse(model),
            (spec("image", "batch", 3, config.image_size, config.image_size),),
            (spec("triplane_ll", "batch", 3, c, r, r), condition),
        ),
        GraphDefinition(
            "diffusion_step",
            _DiffusionStep(model),
            (
                spec("noisy", *bands),
                condition,
                spec("previous", *bands),
                spec("noise", *bands),
                spec("row", len(COLUMNS)),
            ),
            (spec("next", *bands), spec("denoised", *bands)),
        ),
        GraphDefinition(
            "assemble",
            _Assemble(model),
            (spec("triplane_ll", "batch", 3, c, r, r), spec("details", *bands)),
            (spec("triplane", "batch", 3, c, 2 * r, 2 * r),),
        ),
        GraphDefinition(
            "renderer",
            _Renderer(model),
            (spec("triplane", "batch", 3, c, 2 * r, 2 * r), spec("points", "batch", "points", 3)),
            (spec("rgb", "batch", "points", 3), spec("density", "batch", "points", 1)),
        ),
        GraphDefinition(
            "view",
            _View(model),
            (
                spec("triplane", 3, c, 2 * r, 2 * r),
                spec("origin", 3),
                spec("rays", 6, "rays"),
                spec("samples", "samples"),
            ),
            (spec("drawn", 5, "rays"),),
        ),
        GraphDefinition(
            "decoder",
            _Decoder(model),
            (spec("features", "batch", "points", 3 * c),),
            (spec("rgb", "batch", "points", 3), spec("density", "batch", "points", 1)),
        ),
    )
    return {definition.name: definition for definition in definitions}


def to_onnx(definition: GraphDefinition) -> onnx.ModelProto:
    """Exports one graph in float32, every dynamic axis named as in its definition."""
    example = definition.example({"batch": 2, "points": 6, "rays": 5, "samples": 7})
    dynamic: dict[str, Any] = {
        spec.name: {axis: size for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in definition.inputs
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            definition.module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in definition.inputs],
            output_names=[spec.name for spec in definition.outputs],
            dynamic_shapes=dynamic,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    DeduplicateInitializersPass(size_limit=1 << 20)(program.model)  # Norms of one size have the same ones for scales.
    proto = program.model_proto
    _name_shapes(proto, definition)
    _forget_sources(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _forget_sources(proto: onnx.ModelProto) -> None:
    """Drops the stack traces that the exporter keeps on every node: they name files of the exporting machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _name_shapes(proto: onnx.ModelProto, definition: GraphDefinition) -> None:
    """States each output's shape as the definition has it; a tracer calls a product of sizes by another name."""
    for values, specs in ((proto.graph.input, definition.inputs), (proto.graph.output, definition.outputs)):
        if [value.name for value in values] != [spec.name for spec in specs]:
            raise RuntimeError(f"{definition.name}: the exporter renamed {[value.name for value in values]}.")
        for value, spec in zip(values, specs, strict=True):
            for axis, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
                if isinstance(size, str):
                    axis.dim_param = size
                else:
                    axis.dim_value = size

"""Modules that stand in for the model's own before export: the same function in a form that runs faster.

LateUpBlock   normalises and activates planes before they are doubled, and convolves them with four kernels of 2x2, one
              for each place in a doubled texel (the sub-pixel form of Shi et al. 2016, exact): 4/9 of the products.
FastResBlock  joins the second norm's scale and shift with the timestep's.
GatherLift    reads images at constant places by gathers: ONNX Runtime's GridSample goes channel by channel on a CPU.

Norms are computed by `GroupNormalization`, which TensorRT and OpenVINO have, or by `LayerNormalization` over each
group, which ONNX Runtime has on a CPU. What each form is worth stands in docs/decisions.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from onnxscript import opset21 as op
from torch import Tensor, nn

from model.layers import NORM_GROUPS, ResBlock, UpBlock, upsample
from model.lift import Lift

# Planes (B, C, H, W) to planes whose groups of channels have mean 0 and variance 1.
Normalise = Callable[[Tensor], Tensor]
_Module = TypeVar("_Module", bound=nn.Module)
_EPSILON = 1e-5
# From so many channels on, summing four neighbours takes less than a product four times as long.
_SUMMED_CHANNELS = 16


def by_group_norm(x: Tensor) -> Tensor:
    """Normalises (B, C, H, W) by the operator GroupNormalization."""
    return F.group_norm(x, NORM_GROUPS, eps=_EPSILON)


def by_layer_norm(x: Tensor) -> Tensor:
    """Normalises (B, C, H, W) by the operator LayerNormalization."""
    rows = x.reshape(-1, NORM_GROUPS, x.shape[1] // NORM_GROUPS * x.shape[2] * x.shape[3])
    return F.layer_norm(rows, rows.shape[-1:], eps=_EPSILON).reshape(-1, *x.shape[1:])


class FastNorm(nn.Module):
    """A GroupNorm by either operator."""

    def __init__(self, norm: nn.GroupNorm, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.weight = nn.Parameter(norm.weight[:, None, None].clone())
        self.bias = nn.Parameter(norm.bias[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x) * self.weight + self.bias


class _SecondHalf(nn.Module):
    """What follows a block's first convolution, with one scale and shift of planes where the block has two."""

    def __init__(self, block: ResBlock, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.norm2, self.modulation, self.conv2 = block.norm2, block.modulation, block.conv2

    def forward(self, h: Tensor, shortcut: Tensor, time: Tensor | None) -> Tensor:
        gain, offset = self.norm2.weight[None], self.norm2.bias[None]
        if self.modulation is not None:
            scale, shift = self.modulation(time).chunk(2, dim=1)
            gain, offset = gain * (1 + scale), offset * (1 + scale) + shift
        h = self.normalise(h) * gain[..., None, None] + offset[..., None, None]
        return shortcut + self.conv2(F.gelu(h))


class FastResBlock(nn.Module):
    """A `ResBlock` of these parts."""

    def __init__(self, block: ResBlock, normalise: Normalise) -> None:
        super().__init__()
        self.norm1, self.conv1, self.skip = FastNorm(block.norm1, normalise), block.conv1, block.skip
        self.second_half = _SecondHalf(block, normalise)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        return self.second_half(self.conv1(F.gelu(self.norm1(x))), self.skip(x), time)


class LateUpBlock(nn.Module):
    """An `UpBlock` whose planes are doubled after its first convolution instead of before its first norm."""

    bias: Tensor

    def __init__(self, block: UpBlock, normalise: Normalise) -> None:
        super().__init__()
        self.second_half, count = _SecondHalf(block, normalise), block.in_channels
        # OpenVINO interleaves faster by DepthToSpace, which takes ONNX Runtime one thread.
        self.interleave = interleaved_by_depth if normalise is by_group_norm else _interleaved
        self.scale = nn.Parameter(block.norm1.weight.reshape(NORM_GROUPS, -1).clone())
        self.shift = nn.Parameter(block.norm1.bias.reshape(NORM_GROUPS, -1).clone())
        weight = block.conv1.weight.detach()
        self.kernels = nn.ParameterList(
            _summed(_summed(weight[:, :count], down, 2), right, 3) for down in (0, 1) for right in (0, 1)
        )
        whole = count == weight.shape[1]
        # The bias is added once: with the finer planes where there are some.
        bias = _bias(block.conv1)
        self.register_buffer("bias", bias if whole else torch.zeros_like(bias))
        self.finer = None if whole else _part(block.conv1, slice(count, None), bias)
        self.small_skip = _part(block.skip, slice(count), _bias(block.skip))
        self.finer_skip = None if whole else _part(block.skip, slice(count, None), None)

    def forward(self, x: Tensor, time: Tensor | None = None, finer: Tensor | None = None) -> Tensor:
        sources = [x] if finer is None else [x, finer]
        normal = [F.gelu(s * gain + offset) for s, (gain, offset) in zip(sources, self._affine(sources), strict=True)]
        corners = [conv2x2(normal[0], k, self.bias, *divmod(i, 2)) for i, k in enumerate(self.kernels)]
        h = self.interleave(*corners)
        shortcut = upsample(self.small_skip(x))
        if finer is not None and self.finer is not None and self.finer_skip is not None:
            h, shortcut = h + self.finer(normal[1]), shortcut + self.finer_skip(finer)
        return self.second_half(h, shortcut, time)

    def _affine(self, sources: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Returns the first norm as a gain and an offset (B, C, 1, 1) for each source.

        Doubled channels have the mean and variance of the small ones, so no plane has to be doubled for them.
        """
        means = [s.mean((2, 3), keepdim=True) for s in sources]
        variances = [(s - m).square().mean((2, 3), keepdim=True) for s, m in zip(sources, means, strict=True)]
        # Variance within channels and between them: a mean of squares less a squared mean would lose digits.
        of_channels, within = (torch.cat(list(v), 1).reshape(-1, *self.scale.shape) for v in (means, variances))
        mean = of_channels.mean(2, keepdim=True)
        variance = within.mean(2, keepdim=True) + (of_channels - mean).square().mean(2, keepdim=True)
        gain = self.scale / (variance + _EPSILON).sqrt()
        offset = self.shift - mean * gain
        ends = pairwise(np.cumsum([0, *(s.shape[1] for s in sources)]).tolist())
        gain, offset = (v.reshape(-1, self.scale.numel(), 1, 1) for v in (gain, offset))
        return [(gain[:, a:b], offset[:, a:b]) for a, b in ends]


class GatherLift(nn.Module):
    """A `Lift` that gathers the four neighbours of a place as one row of a table, then weights and joins them."""

    index: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(self, lift: Lift) -> None:
        super().__init__()
        # The image features that a lift reads have the planes' own resolution.
        self.reduce, self.resolution = lift.reduce, lift.resolution
        channels, join = lift.reduce.out_channels, lift.join.weight.detach()
        grid = lift.grid[0].double().reshape(3, lift.depths, lift.resolution, lift.resolution, 2)
        # Depth last, so that what is joined lies together.
        places = grid.permute(0, 2, 3, 1, 4).reshape(-1, 2)
        side = lift.resolution
        across, down = (((places[:, axis] + 1) * side / 2 - 0.5).clamp(0, side - 1) for axis in (0, 1))
        left, top = across.floor(), down.floor()
        u, v = across - left, down - top
        weights = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], dim=1)
        self.register_buffer("index", (top * side + left).int())
        self.register_buffer("weights", weights[..., None].float())
        matrix = join.reshape(-1, channels, lift.depths).permute(2, 1, 0)
        self.summed = channels >= _SUMMED_CHANNELS
        if not self.summed:  # The same matrix for each of the four neighbours sums them.
            matrix = matrix[:, None].repeat(1, 4, 1, 1)
        self.matrix = nn.Parameter(matrix.reshape(-1, join.shape[0]).contiguous())
        self.register_buffer("bias", _bias(lift.join))

    def forward(self, features: Tensor) -> Tensor:
        reduced, side = self.reduce(features), self.resolution
        # One texel more to the right and below, whose weight at the border is 0.
        wide = F.pad(reduced, (0, 1, 0, 1), mode="replicate").permute(0, 2, 3, 1)
        corners = [wide[:, y : y + side, x : x + side] for y in (0, 1) for x in (0, 1)]
        table = torch.cat(corners, dim=3).flatten(1, 2)
        near = table.index_select(1, self.index).unflatten(2, (4, -1)) * self.weights
        near = near.sum(2) if self.summed else near
        lines = near.reshape(-1, 3 * side**2, len(self.matrix)) @ self.matrix + self.bias
        return lines.reshape(-1, side, side, len(self.bias)).permute(0, 3, 1, 2)


def with_fast_modules(model: _Module, normalise: Normalise, gathers: bool) -> _Module:
    """Returns a copy of a model with faster parts.

    Args:
        model: in evaluation mode.
        normalise: `by_group_norm` or `by_layer_norm`.
        gathers: also replaces each `Lift`.

    Raises:
        LookupError: the model has no part of a kind that is to be replaced.
    """
    model = copy.deepcopy(model)
    made: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
        UpBlock: lambda block: LateUpBlock(block, normalise),
        ResBlock: lambda block: FastResBlock(block, normalise),
        nn.GroupNorm: lambda norm: FastNorm(norm, normalise),
    }
    if gathers:
        made[Lift] = GatherLift
    replaced = set()

    def replace(parent: nn.Module) -> None:
        for name, child in parent.named_children():
            if type(child) in made:
                replaced.add(type(child))
                setattr(parent, name, made[type(child)](child))
            else:
                replace(child)

    replace(model)
    if replaced != set(made):
        raise LookupError(
            f"The model has no {', '.join(kind.__name__ for kind in made if kind not in replaced)} to replace."
        )
    return model.eval()


@torch.library.custom_op("wavelet_triplane::conv2x2", mutates_args=())
def conv2x2(x: Tensor, weight: Tensor, bias: Tensor, down: int, right: int) -> Tensor:
    """Convolves (B, C, H, W) with 2x2 kernels, padded by one row and one column so that the size stays.

    Args:
        x: planes.
        weight: (out, C, 2, 2).
        bias: (out,).
        down: 1 to pad below, 0 above.
        right: 1 to pad on the right, 0 on the left.
    """
    return F.conv2d(F.pad(x, (1 - right, right, 1 - down, down)), weight, bias)


@conv2x2.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, down: int, right: int) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])


def _conv2x2_to_onnx(x: Any, weight: Any, bias: Any, down: int, right: int) -> Any:
    return op.Conv(x, weight, bias, pads=[1 - down, 1 - right, down, right])


@torch.library.custom_op("wavelet_triplane::interleaved_by_depth", mutates_args=())
def interleaved_by_depth(upper_left: Tensor, upper_right: Tensor, lower_left: Tensor, lower_right: Tensor) -> Tensor:
    """Interleaves four (B, C, H, W) to (B, C, 2H, 2W) by the operator DepthToSpace."""
    return _interleaved(upper_left, upper_right, lower_left, lower_right).contiguous()


@interleaved_by_depth.register_fake
def _(upper_left: Tensor, upper_right: Tensor, lower_left: Tensor, lower_right: Tensor) -> Tensor:
    return upper_left.new_empty(*upper_left.shape[:2], 2 * upper_left.shape[2], 2 * upper_left.shape[3])


def _interleaved_to_onnx(upper_left: Any, upper_right: Any, lower_left: Any, lower_right: Any) -> Any:
    corners = op.Concat(upper_left, upper_right, lower_left, lower_right, axis=1)
    return op.DepthToSpace(corners, blocksize=2, mode="DCR")


def _interleaved(upper_left: Tensor, upper_right: Tensor, lower_left: Tensor, lower_right: Tensor) -> Tensor:
    rows = [torch.stack(pair, dim=-1).flatten(-2) for pair in ((upper_left, upper_right), (lower_left, lower_right))]
    return torch.stack(rows, dim=-2).flatten(-3, -2)


# For `torch.onnx.export`: PyTorch has no such padding, so that it would export a Pad of its own.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.wavelet_triplane.conv2x2.default: _conv2x2_to_onnx,
    torch.ops.wavelet_triplane.interleaved_by_depth.default: _interleaved_to_onnx,
}


def _summed(weight: Tensor, place: int, axis: int) -> Tensor:
    """Three weights along an axis to the two that remain when nearest neighbours have doubled what they are for."""
    first, middle, last = weight.split(1, axis)
    return torch.cat([first, middle + last] if place == 0 else [first + middle, last], axis)


def _part(conv: nn.Conv2d, channels: slice, bias: Tensor | None) -> nn.Conv2d:
    """A convolution of some of another's input channels."""
    smaller = copy.deepcopy(conv)
    smaller.weight = nn.Parameter(conv.weight[:, channels].detach().clone())
    smaller.in_channels = smaller.weight.shape[1]
    smaller.bias = None if bias is None else nn.Parameter(bias.clone())
    return smaller


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach().clone()

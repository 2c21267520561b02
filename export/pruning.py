"""The decoder without the hidden units that training has given up."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from model.renderer import TriplaneRenderer


def pruned(renderer: TriplaneRenderer) -> TriplaneRenderer:
    """Returns a copy that computes the same without the units of the last hidden layer that can only give 0."""
    smaller, (weight, bias) = copy.deepcopy(renderer), renderer.mlp[2].parameters()
    # What comes in has passed a ReLU: with no weight above 0, nothing is.
    kept = (weight > 0).any(1) | (bias > 0)
    # An empty matrix is more than some exporters and engines know what to do with.
    kept[0] |= ~kept.any()
    smaller.mlp[2] = _linear(weight[kept], bias[kept])
    for name in ("colour", "density"):
        head = getattr(renderer, name)
        setattr(smaller, name, _linear(head.weight[:, kept], head.bias))
    return smaller


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer

"""Decoder units that no object activates: zeroed after training, left out of the export."""

import torch

from export.pruning import pruned
from model.renderer import TriplaneRenderer
from model.training.pruning import INACTIVE, zero_inactive_units


def test_inactive_units_become_zeros_and_are_left_out_without_a_difference():
    torch.manual_seed(3)
    renderer, features = TriplaneRenderer(4, 16), torch.randn(2000, 12)
    never, barely, plainly = [0, 5], [3], [1, 2, 4, *range(6, 16)]
    with torch.no_grad():
        bias, loudest = renderer.mlp[2].bias, renderer.mlp[2](renderer.mlp[:2](features)).amax(0)
        bias[never] -= loudest[never] + 0.1
        # Weights of the heads are below 1: too little to move a logit by as much as counts.
        bias[barely] -= loudest[barely] - INACTIVE
        bias[plainly] += 1
        before = renderer.decode(features)
        assert zero_inactive_units(renderer, [features[:1000], features[1000:]]) == 3
        smaller = pruned(renderer)
        assert smaller.mlp[2].out_features == smaller.colour.in_features == len(plainly)
        assert renderer.mlp[2].out_features == 16, "the renderer itself keeps its sizes, and so does its checkpoint"
        # On other features too: zeros are zeros everywhere.
        for inputs in (features, 30 * torch.randn(500, 12)):
            for found, expected in zip(smaller.decode(inputs), renderer.decode(inputs), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for found, expected in zip(renderer.decode(features), before, strict=True):
            assert (found - expected).abs().max() < 20 * INACTIVE


def test_without_an_active_unit_one_is_kept():
    renderer = TriplaneRenderer(4, 16)
    with torch.no_grad():
        for parameter in renderer.mlp.parameters():
            parameter.zero_()
    smaller, features = pruned(renderer), torch.randn(5, 12)
    assert smaller.mlp[2].out_features == 1
    for found, expected in zip(smaller.decode(features), renderer.decode(features), strict=True):
        torch.testing.assert_close(found, expected)

"""Giving up decoder units that no object activates; the export leaves them out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..renderer import TriplaneRenderer

# A unit that never moves a logit by as much is inactive: of a colour that is two thirds of a step of 8 bits at most.
INACTIVE = 1e-2


def zero_inactive_units(renderer: TriplaneRenderer, features: Iterable[Tensor]) -> int:
    """Sets the last hidden layer's units to zero that change no logit by as much as `INACTIVE`.

    Args:
        renderer: changed in place.
        features: (N, 3C) each, of all that the renderer is to be used for.

    Returns:
        How many units are inactive.
    """
    with torch.no_grad():
        largest: Tensor = torch.stack([renderer.mlp(part).amax(0) for part in features]).amax(0)
        weight = torch.cat([renderer.colour.weight, renderer.density.weight]).abs().amax(0)
        inactive = largest * weight < INACTIVE
        for parameter in renderer.mlp[2].parameters():
            parameter[inactive] = 0
    return int(inactive.sum())

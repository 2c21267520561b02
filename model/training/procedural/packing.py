"""Solids as families describe them, and their packing into tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .patterns import NONE
from .solids import ELLIPSOID, ROUND, Solids


@dataclass
class Solid:
    """One solid as a family describes it, before objects are packed into tensors.

    Attributes:
        kind: ELLIPSOID, ROUND or BOX.
        centre: world position.
        half: half extents along the solid's own axes.
        colour: RGB in [0, 1].
        rotation: 3x3, local to world.
        taper: a, b, c, d.
        second: colour of the pattern; pattern, layout: as in `Solids`.
        carves: hollows the solid before it.
    """

    kind: int
    centre: np.ndarray
    half: np.ndarray
    colour: np.ndarray
    rotation: np.ndarray
    taper: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 0.0)
    second: np.ndarray | None = None
    pattern: int = NONE
    layout: tuple[float, float, float, float] = (1.0, 0.0, 0.5, 0.0)
    carves: bool = False

    def outline(self) -> np.ndarray:
        """(K, 3) world points whose convex hull is the solid, closely."""
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        ring = np.stack([np.cos(angles), np.zeros_like(angles), np.sin(angles)], 1)
        a, b, c, d = self.taper
        if self.kind == ELLIPSOID:
            heights = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 13))
            local = np.concatenate([ring * np.sqrt(1 - y * y) + [0, y, 0] for y in heights])
        elif self.kind == ROUND:
            local = np.concatenate([ring * (a + b * y) + [0, y, 0] for y in (-1, 1)])
        else:
            local = np.array(
                [[sx * (a + b * y), y, sz * (c + d * y)] for sx in (-1, 1) for y in (-1, 1) for sz in (-1, 1)]
            )
        return (local * self.half) @ self.rotation.T + self.centre


def pack(objects: list[list[Solid]]) -> Solids:
    """Lists of solids to padded tensors."""
    count, most = len(objects), max(map(len, objects))
    kind, pattern, carves = np.full((count, most), -1), np.zeros((count, most), int), np.zeros((count, most), bool)
    taper, to_local = np.zeros((count, most, 4)), np.zeros((count, most, 3, 4))
    half, ball, layout = np.ones((count, most, 3)), np.zeros((count, most, 4)), np.ones((count, most, 4))
    colour = np.zeros((count, most, 2, 3))
    for i, solids in enumerate(objects):
        for j, s in enumerate(solids):
            kind[i, j], taper[i, j], half[i, j] = s.kind, s.taper, s.half
            inverse = (s.rotation / s.half).T
            to_local[i, j] = np.concatenate([inverse, -(inverse @ s.centre)[:, None]], axis=1)
            reach = s.half.max() if s.kind == ELLIPSOID else np.linalg.norm(s.outline() - s.centre, axis=1).max()
            # Corners of a ring may lie beside an ellipse's farthest points, by less than a hundredth.
            ball[i, j] = *s.centre, 1.01 * reach
            colour[i, j] = np.clip((s.colour, s.colour if s.second is None else s.second), 0, 1)
            pattern[i, j], layout[i, j], carves[i, j] = s.pattern, s.layout, s.carves
    return Solids(*map(torch.from_numpy, (kind, taper, to_local, half, ball, colour, pattern, layout, carves)))

"""Procedural objects from seeds: a family, sometimes dressed in patterns, turned and framed.

`make_object` turns the object about its vertical axis, then moves and scales it so that the canonical camera sees it
framed as every input image is: centred, its bounding square a fixed share of the image.
"""

from __future__ import annotations

import numpy as np

from ..data.framing import framing_of
from .families import FAMILIES, colour_near, yaw
from .household import bed, bottle, food, shelf, sofa, tool, vase
from .outdoors import animal, boat, figure, lorry, plane, tree
from .packing import Solid, pack
from .patterns import BRICKS, CHECKS, DOTS, EDGES, LETTERS, NONE, PANELS, PLANKS, STRIPES
from .solids import Solids

# A seed chooses by place in this table: new families go to its end.
ALL_FAMILIES = FAMILIES | {
    family.__name__: family
    for family in (sofa, bed, shelf, bottle, vase, boat, plane, tree, tool, animal, figure, lorry, food)
}
MAX_YAW = 60.0
_LARGEST_RADIUS = 0.98
_DRESSED = 0.65
_PATTERNS = (STRIPES, CHECKS, DOTS, BRICKS, PLANKS, PANELS, LETTERS, EDGES)


def make_object(seed: int, family: str | None = None, *, textured: bool = False) -> list[Solid]:
    """An object from a seed, framed for the canonical camera and inside the unit sphere.

    Args:
        seed: any whole number of 0 or more.
        family: a name in `ALL_FAMILIES`; None lets the seed choose: among `FAMILIES`, and among all where `textured`.
        textured: dresses the object in surface patterns.
    """
    rng = np.random.default_rng(seed)
    names = tuple(ALL_FAMILIES if textured else FAMILIES)
    while True:
        make = ALL_FAMILIES[family or names[int(rng.integers(len(names)))]]
        solids = make(rng)
        if textured:
            _dress(solids, rng)
        turn = yaw(rng.uniform(-MAX_YAW, MAX_YAW))
        for solid in solids:
            solid.centre, solid.rotation = turn @ solid.centre, turn @ solid.rotation
        if _frame(solids):
            return solids


def make_objects(seeds: list[int], family: str | None = None, *, textured: bool = False) -> Solids:
    """Objects from seeds, packed."""
    return pack([make_object(seed, family, textured=textured) for seed in seeds])


def _dress(solids: list[Solid], rng: np.random.Generator) -> None:
    """Gives some of the object's materials a pattern; solids that share a colour array are of one material."""
    for material in {id(solid.colour): solid.colour for solid in solids}.values():
        if rng.random() >= _DRESSED:
            continue
        pattern = int(rng.choice(_PATTERNS))
        second = colour_near(rng, material) if rng.random() < 0.5 else rng.random(3)
        layout = (rng.uniform(0.12, 0.4), rng.uniform(0, np.pi), rng.uniform(0.2, 0.5), rng.uniform(0, 10))
        for solid in solids:
            if solid.colour is material and solid.pattern == NONE:
                solid.second, solid.pattern, solid.layout = second, pattern, layout


def _frame(solids: list[Solid]) -> bool:
    """Moves and scales the object in place to the framing of the input images; False if it leaves the sphere."""
    outline = np.concatenate([solid.outline() for solid in solids if not solid.carves])
    scale, shift = framing_of(outline)
    if np.linalg.norm(outline * scale + shift, axis=1).max() > _LARGEST_RADIUS:
        return False
    for solid in solids:
        solid.centre, solid.half = solid.centre * scale + shift, solid.half * scale
    return True

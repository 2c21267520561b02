"""Surface patterns of solids: stripes, checks, dots, bricks, planks, panels, lettering and two-tone edges.

A pattern says how much of the second colour a point has, from 0 to 1. It is a function of two surface coordinates in
scene units, so that a brick is as large on a wall as on a chimney.
"""

from __future__ import annotations

import math

from numba import njit

NONE, BANDS, STRIPES, CHECKS, DOTS, BRICKS, PLANKS, PANELS, LETTERS, EDGES = range(10)
NAMES = ("none", "bands", "stripes", "checks", "dots", "bricks", "planks", "panels", "letters", "edges")


@njit(cache=True)
def _hash(a: float, b: float, seed: float) -> float:
    """A number in [0, 1) that belongs to a cell: the fractional sine of shader programming."""
    value = math.sin(a * 12.9898 + b * 78.233 + seed * 37.719) * 43758.5453
    return value - math.floor(value)


@njit(cache=True)
def amount(
    pattern: int, u: float, v: float, height: float, edge: float, period: float, angle: float, share: float, seed: float
) -> float:
    """How much of the second colour a surface point has.

    Args:
        pattern: a number of `NAMES`.
        u: surface coordinate in scene units.
        v: the other one.
        height: y in the solid's own frame, from -1 to 1.
        edge: distance from the nearest edge of the face in scene units.
        period: size of a repeat in scene units; of BANDS, bands for each unit of `height`.
        angle: radians that stripes, checks and dots are turned by.
        share: of the surface that the second colour takes, about.
        seed: sets the pattern off from others of its kind.

    Returns:
        0 to 1.
    """
    if pattern == NONE:
        return 0.0
    if pattern == BANDS:
        return 1.0 if math.cos(period * math.pi * height) > 0 else 0.0
    if pattern == EDGES:
        return 1.0 if edge < share * period else 0.0
    cosine, sine = math.cos(angle), math.sin(angle)
    a, b = (cosine * u + sine * v) / period + seed, (cosine * v - sine * u) / period + 0.37 * seed
    if pattern == STRIPES:
        return 1.0 if a - math.floor(a) < share else 0.0
    if pattern == CHECKS:
        return float((math.floor(a) + math.floor(b)) % 2)
    if pattern == DOTS:
        x, y = a - math.floor(a) - 0.5, b - math.floor(b) - 0.5
        return 1.0 if math.pi * (x * x + y * y) < share else 0.0
    # The rest stands upright: walls are not laid at an angle.
    a, b = u / period + seed, v / period + 0.37 * seed
    if pattern == BRICKS:
        row = math.floor(2 * b)
        a += 0.5 * (row % 2)
        x, y = a - math.floor(a), 2 * b - row
        mortar = min(x, 1 - x) < 0.05 or min(y, 1 - y) < 0.1
        return 1.0 if mortar else 0.3 * _hash(math.floor(a), row, seed)
    if pattern == PLANKS:
        board = math.floor(2 * a)
        x = 2 * a - board
        if min(x, 1 - x) < 0.06:
            return 1.0
        tone = 0.45 * _hash(board, 1.0, seed)
        grain = math.sin(23 * x + 2.2 * math.sin(3 * b + 9 * tone) + 7 * tone)
        return tone + (0.2 if grain > 0.3 else 0.0)
    if pattern == PANELS:
        x, y = a - math.floor(a), b - math.floor(b)
        gap = min(min(x, 1 - x), min(y, 1 - y))
        return (
            1.0 if gap < 0.045 else (0.35 if gap > 0.14 and _hash(math.floor(a), math.floor(b), seed) < share else 0.0)
        )
    # LETTERS: rows of glyphs, each of 3 by 5 cells that a hash blackens.
    column, row = math.floor(2 * a), math.floor(1.2 * b)
    x, y = (2 * a - column) * 4, (1.2 * b - row) * 8
    if x >= 3 or y >= 5 or _hash(column, row, seed + 5) < 0.15:
        return 0.0
    return 1.0 if _hash(4 * column + math.floor(x), 8 * row + math.floor(y), seed) < 0.6 else 0.0

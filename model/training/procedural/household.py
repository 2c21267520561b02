"""Families of a household: sofa, bed, shelf, bottle, vase, tool, food."""

from __future__ import annotations

import numpy as np

from .families import Generator, any_colour, ball, box, frustum, legs, rod
from .packing import Solid
from .solids import BOX, ELLIPSOID


def sofa(rng: Generator) -> list[Solid]:
    """A seat, a back and arms, with cushions."""
    width, deep, seat, back = (
        rng.uniform(0.7, 1.1),
        rng.uniform(0.35, 0.5),
        rng.uniform(0.16, 0.24),
        rng.uniform(0.3, 0.5),
    )
    cloth, pillow, wood = any_colour(rng), any_colour(rng), any_colour(rng)
    arm, high = rng.uniform(0.08, 0.16), rng.uniform(0.12, 0.25)
    solids = [
        box([0, seat + 0.08, 0], [width, seat, deep], cloth),
        box([0, seat + back, 0.1 - deep], [width, back, rng.uniform(0.08, 0.14)], cloth),
        *legs(rng, width, deep, 0.12, wood),
    ]
    for side in (-1, 1):
        solids.append(box([side * (width - arm), 2 * seat + high, 0.02], [arm, high, deep], cloth))
    count = int(rng.integers(1, 4))
    each = (width - 2 * arm) / count
    for index in range(count):
        x = (2 * index + 1 - count) * each
        solids.append(box([x, 2 * seat + 0.14, 0.08], [each * 0.95, 0.07, deep * 0.85], pillow))
    return solids


def bed(rng: Generator) -> list[Solid]:
    """A frame, a mattress, a blanket and pillows."""
    width, deep, high = rng.uniform(0.4, 0.75), rng.uniform(0.8, 1.0), rng.uniform(0.12, 0.2)
    wood, sheet, cover = any_colour(rng), any_colour(rng) * 0.3 + 0.7, any_colour(rng)
    head = rng.uniform(0.25, 0.5)
    solids = [
        box([0, high + 0.1, 0], [width, 0.08, deep], wood),
        box([0, head, -deep], [width, head, 0.05], wood),
        box([0, high + 0.28, 0], [width * 0.95, 0.12, deep * 0.97], sheet),
        box([0, high + 0.3, 0.35 * deep], [width, 0.13, deep * 0.62], cover),
        *legs(rng, width, deep, 0.3, wood),
    ]
    if rng.random() < 0.5:
        solids.append(box([0, head * 0.6, deep], [width, head * 0.6, 0.05], wood))
    pillows = 2 if width > 0.55 else 1
    for index in range(pillows):
        x = (2 * index + 1 - pillows) * width * 0.45
        solids.append(ball([x, high + 0.43, -0.72 * deep], [width * 0.7 / pillows, 0.1, 0.17], sheet))
    return solids


def shelf(rng: Generator) -> list[Solid]:
    """Boards between sides, with books, boxes and jars."""
    width, deep, high = rng.uniform(0.4, 0.8), rng.uniform(0.15, 0.25), rng.uniform(0.6, 1.0)
    wood, count = any_colour(rng), int(rng.integers(3, 5))
    solids = [box([s * width, high, 0], [0.04, high, deep], wood) for s in (-1, 1)]
    if rng.random() < 0.6:
        solids.append(box([0, high, -deep], [width, high, 0.025], any_colour(rng)))
    levels = np.linspace(0.05, 2 * high - 0.04, count)
    solids += [box([0, y, 0], [width, 0.03, deep], wood) for y in levels]
    gap = levels[1] - levels[0] - 0.06
    for y in levels[:-1]:
        x = -width + 0.1
        while x < width - 0.18 and len(solids) < 26:
            size, tall = rng.uniform(0.05, 0.13), gap * rng.uniform(0.45, 0.9)
            make = box if rng.random() < 0.75 else frustum
            solids.append(make([x + size, y + 0.03 + tall / 2, 0.02], [size, tall / 2, deep * 0.7], any_colour(rng)))
            x += 2 * size + rng.uniform(0.0, 0.18)
    return solids


def bottle(rng: Generator) -> list[Solid]:
    """A body, a shoulder, a neck and a cap, with a label."""
    radius, high = rng.uniform(0.22, 0.42), rng.uniform(0.45, 0.7)
    glass, cap, label = any_colour(rng), any_colour(rng), any_colour(rng)
    neck, slope = radius * rng.uniform(0.25, 0.55), rng.uniform(0.08, 0.25)
    long, lid = rng.uniform(0.08, 0.25), rng.uniform(0.05, 0.1)
    middle, lean = (1 + neck / radius) / 2, (neck / radius - 1) / 2
    top = 2 * high + 2 * slope
    return [
        frustum([0, high, 0], [radius, high, radius], glass),
        frustum(
            [0, high * rng.uniform(0.8, 1.1), 0], [radius * 1.01, high * rng.uniform(0.3, 0.6), radius * 1.01], label
        ),
        frustum([0, 2 * high + slope, 0], [radius, slope, radius], glass, middle, lean),
        frustum([0, top + long, 0], [neck, long, neck], glass),
        frustum([0, top + 2 * long + lid, 0], [neck * 1.2, lid, neck * 1.2], cap),
    ]


def vase(rng: Generator) -> list[Solid]:
    """A round belly on a foot, open at the neck, perhaps with flowers."""
    radius, tall = rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.6)
    clay, band = any_colour(rng), any_colour(rng)
    foot, neck, long = radius * rng.uniform(0.5, 0.8), radius * rng.uniform(0.35, 0.7), rng.uniform(0.12, 0.3)
    flare = rng.uniform(-0.1, 0.3)
    top = 0.1 + 1.85 * tall
    solids = [
        frustum([0, 0.06, 0], [foot, 0.07, foot], band, 0.9, -0.1),
        ball([0, 0.1 + tall, 0], [radius, tall, radius], clay),
        frustum([0, top + long, 0], [neck, long, neck], clay, 1 + flare / 2, flare / 2),
        frustum([0, top + long + 0.06, 0], [neck * 0.8, long, neck * 0.8], clay, 1 + flare / 2, flare / 2, carves=True),
    ]
    if rng.random() < 0.5:
        leaf = np.array([0.25, 0.55, 0.2]) * rng.uniform(0.7, 1.3)
        petals = any_colour(rng)
        for _ in range(int(rng.integers(3, 6))):
            end = np.array([rng.uniform(-0.4, 0.4), top + 2 * long + rng.uniform(0.3, 0.6), rng.uniform(-0.4, 0.4)])
            solids.append(rod([0, top + long, 0], end, 0.025, leaf))
            size = rng.uniform(0.08, 0.15)
            solids.append(ball(list(end), [size, size * 0.8, size], petals))
    return solids


def tool(rng: Generator) -> list[Solid]:
    """A hammer, an axe, a sword, a spade or a screwdriver, upright or leaning."""
    tall, thick = rng.uniform(0.6, 0.9), rng.uniform(0.045, 0.08)
    wood, metal, dark = any_colour(rng), np.full(3, rng.uniform(0.5, 0.85)), any_colour(rng)
    kind = int(rng.integers(5))
    solids = [frustum([0, tall, 0], [thick, tall, thick], wood, 0.95, -0.05)]
    top = 2 * tall
    if kind == 0:
        solids.append(box([0.05, top, 0], [rng.uniform(0.25, 0.4), 0.12, 0.12], metal))
        solids.append(rod([-0.25, top, 0], [-0.5, top, 0], 0.11, metal, BOX, 0.4))
    elif kind == 1:
        solids.append(rod([0.0, top - 0.1, 0], [0.42, top - 0.1, 0], 0.16, metal, BOX, 1.9))
        solids[-1].half[2 if abs(solids[-1].rotation[2, 2]) > 0.5 else 0] = 0.05
    elif kind == 2:
        solids = [frustum([0, 0.2, 0], [thick, 0.2, thick], wood), ball([0, 0, 0], [0.09, 0.09, 0.09], dark)]
        solids.append(box([0, 0.42, 0], [rng.uniform(0.2, 0.35), 0.045, 0.07], dark))
        solids.append(box([0, 0.45 + tall, 0], [0.1, tall, 0.03], metal, taper=(0.75, -0.25, 1, 0)))
    elif kind == 3:
        solids.append(box([0, top + 0.2, 0], [0.24, 0.3, 0.035], metal, taper=(0.85, -0.15, 1, 0)))
        solids.append(box([0, 0, 0], [0.2, 0.05, 0.06], dark))
    else:
        solids = [
            frustum([0, 0.3, 0], [0.15, 0.32, 0.15], wood, 0.9, 0.1),
            frustum([0, 1.0, 0], [0.05, 0.45, 0.05], metal),
        ]
        solids.append(frustum([0, 0.62, 0], [0.1, 0.06, 0.1], dark))
    angle = np.radians(rng.uniform(-35, 35))
    lean = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    for solid in solids:
        solid.centre, solid.rotation = lean @ solid.centre, lean @ solid.rotation
    return solids


def food(rng: Generator) -> list[Solid]:
    """A plate of things, a cake, a burger or fruit."""
    kind, size = int(rng.integers(4)), rng.uniform(0.4, 0.6)
    base = any_colour(rng)
    if kind == 0:
        solids = [frustum([0, 0.04, 0], [0.9, 0.05, 0.9], base * 0.3 + 0.7, 0.85, 0.15)]
        for _ in range(int(rng.integers(3, 7))):
            s = rng.uniform(0.12, 0.25)
            make = (box, frustum, ball)[int(rng.integers(3))]
            solids.append(make([rng.uniform(-0.5, 0.5), 0.08 + s, rng.uniform(-0.5, 0.5)], [s, s, s], any_colour(rng)))
    elif kind == 1:
        solids, y = [], 0.0
        for index in range(int(rng.integers(1, 4))):
            wide, high = size * (1.5 - 0.35 * index), rng.uniform(0.12, 0.22)
            solids.append(frustum([0, y + high, 0], [wide, high, wide], any_colour(rng)))
            solids.append(frustum([0, y + 2 * high, 0], [wide * 1.04, 0.04, wide * 1.04], any_colour(rng)))
            y += 2 * high + 0.03
        solids.append(ball([0, y + 0.1, 0], [0.1, 0.1, 0.1], any_colour(rng)))
    elif kind == 2:
        bread = np.array([0.8, 0.55, 0.3]) * rng.uniform(0.8, 1.2)
        solids, y = [frustum([0, 0.1, 0], [size, 0.1, size], bread)], 0.22
        for _ in range(int(rng.integers(2, 5))):
            high = rng.uniform(0.03, 0.08)
            solids.append(
                frustum([0, y + high, 0], [size * rng.uniform(0.95, 1.12), high, size * 1.05], any_colour(rng))
            )
            y += 2 * high
        solids.append(ball([0, y, 0], [size, rng.uniform(0.22, 0.35), size], bread))
    else:
        fruit = any_colour(rng)
        solids = [ball([0, size, 0], [size, size * rng.uniform(0.85, 1.3), size], fruit)]
        solids.append(rod([0, 1.8 * size, 0], [0.06, 2.2 * size, 0], 0.04, np.array([0.4, 0.28, 0.15])))
        solids.append(rod([0, 2.0 * size, 0], [0.4, 2.2 * size, 0.1], 0.1, np.array([0.3, 0.6, 0.2]), ELLIPSOID))
    return solids

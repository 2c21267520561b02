"""Thirteen more families: furniture, vessels, vehicles, plants, animals and figures."""

from __future__ import annotations

import numpy as np

from .families import Family, Generator, any_colour, ball, box, frustum, legs, yaw
from .solids import BOX, ELLIPSOID, ROUND, Solid

Vector = np.ndarray | list[float]


def rod(start: Vector, end: Vector, thick: float, colour: np.ndarray, kind: int = ROUND, narrow: float = 1.0) -> Solid:
    """A solid from one point to another, `thick` at the start and `narrow` times that at the end."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    up = (b - a) / np.linalg.norm(b - a)
    side = np.cross(up, [0, 0, 1.0] if abs(up[2]) < 0.9 else [1.0, 0, 0])
    side /= np.linalg.norm(side)
    turn = np.stack([side, up, np.cross(side, up)], axis=1)
    half = np.array([thick, np.linalg.norm(b - a) / 2, thick])
    middle, slope = (1 + narrow) / 2, (narrow - 1) / 2
    taper = (1.0, 0.0, 1.0, 0.0) if kind == ELLIPSOID else (middle, slope, middle, slope)
    return Solid(kind, (a + b) / 2, half, colour, turn, taper)


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


def boat(rng: Generator) -> list[Solid]:
    """A hull with a cabin, or with a mast and a sail."""
    length, deep, high = rng.uniform(0.8, 1.1), rng.uniform(0.22, 0.36), rng.uniform(0.13, 0.22)
    paint, wood, white = any_colour(rng), any_colour(rng), np.full(3, rng.uniform(0.8, 1.0))
    flat = [0, high, 0]
    solids = [
        box(flat, [length, high, deep], paint, taper=(0.86, 0.14, 0.8, 0.2)),
        box([0, 2 * high + 0.02, 0], [length * 0.99, 0.03, deep * 0.99], wood),
        rod([length * 0.9, high * 1.1, 0], [length * 1.25, 2 * high, 0], deep * 0.8, paint, BOX, 0.1),
    ]
    if rng.random() < 0.5:
        tall = rng.uniform(0.6, 0.9)
        solids.append(frustum([0, 2 * high + tall, 0], [0.035, tall, 0.035], wood))
        sail = box([-0.28, 2 * high + tall * 1.05, 0], [0.27, tall * 0.8, 0.02], white, taper=(0.55, -0.45, 1, 0))
        solids += [sail, box([0.0, 2 * high + 0.12, 0], [length * 0.6, 0.03, 0.03], wood)]
    else:
        cabin = rng.uniform(0.14, 0.24)
        shift = rng.uniform(-0.35, 0.1)
        solids.append(box([shift, 2 * high + cabin, 0], [length * 0.35, cabin, deep * 0.75], white))
        solids.append(box([shift, 2 * high + cabin * 1.2, 0], [length * 0.355, cabin * 0.35, deep * 0.76], wood * 0.5))
        solids.append(frustum([shift - 0.1, 2 * high + 2 * cabin + 0.14, 0], [0.08, 0.16, 0.08], any_colour(rng)))
    return solids


def plane(rng: Generator) -> list[Solid]:
    """A fuselage, wings, a tail and engines."""
    long, thick, span = rng.uniform(0.8, 1.0), rng.uniform(0.13, 0.2), rng.uniform(0.7, 1.0)
    body, wing, dark = any_colour(rng), any_colour(rng), np.array([0.2, 0.25, 0.35])
    sweep, y = rng.uniform(-0.05, 0.35), rng.uniform(-0.08, 0.1)
    solids = [
        rod([-long, 0.04, 0], [long * 0.75, 0, 0], thick * 0.55, body, ROUND, 1.8),
        ball([long * 0.75, 0, 0], [0.28, thick, thick], body),
        ball([long * 0.62, thick * 0.6, 0], [0.18, thick * 0.6, thick * 0.6], dark),
        box([-long * 0.88, 0.25, 0], [0.14, 0.2, 0.025], wing, taper=(0.75, -0.25, 1, 0)),
    ]
    for side in (-1, 1):
        solids.append(rod([0.1, y, 0], [0.1 - sweep, y + 0.05, side * span], 0.2, wing, BOX, 0.6))
        solids[-1].half[2 if abs(solids[-1].rotation[1, 2]) > 0.5 else 0] = 0.035
        solids.append(box([-long * 0.88, 0.08, side * 0.22], [0.11, 0.02, 0.2], wing))
        if rng.random() < 0.7:
            solids.append(rod([-0.1, y - 0.1, side * 0.4], [0.32, y - 0.1, side * 0.4], 0.08, body))
    return solids


def tree(rng: Generator) -> list[Solid]:
    """A trunk, and a crown of balls, of cones, or of palm leaves."""
    tall, thick = rng.uniform(0.5, 0.9), rng.uniform(0.06, 0.13)
    bark = np.array([0.45, 0.3, 0.18]) * rng.uniform(0.7, 1.4)
    leaf = np.array([0.25, 0.55, 0.2]) * rng.uniform(0.6, 1.4) if rng.random() < 0.7 else any_colour(rng)
    solids = [frustum([0, tall / 2, 0], [thick * 1.3, tall / 2, thick * 1.3], bark, 0.85, -0.15)]
    kind = int(rng.integers(3))
    if kind == 0:
        for _ in range(int(rng.integers(3, 7))):
            size = rng.uniform(0.22, 0.4)
            place = [rng.uniform(-0.3, 0.3), tall + rng.uniform(0.0, 0.5), rng.uniform(-0.3, 0.3)]
            solids.append(ball(place, [size, size * rng.uniform(0.7, 1.0), size], leaf * rng.uniform(0.85, 1.15)))
    elif kind == 1:
        count = int(rng.integers(2, 5))
        for index in range(count):
            wide, high = 0.55 * (1 - index / (count + 1)), rng.uniform(0.22, 0.34)
            solids.append(frustum([0, tall + index * high * 1.2, 0], [wide, high, wide], leaf, 0.52, -0.48))
    else:
        for index in range(int(rng.integers(5, 8))):
            way = yaw(index * 52.0 + rng.uniform(-10, 10)) @ np.array([1.0, 0, 0])
            tip = way * rng.uniform(0.5, 0.7) + [0, tall + rng.uniform(-0.15, 0.25), 0]
            solids.append(rod([0, tall, 0], tip, 0.09, leaf, ELLIPSOID))
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


def animal(rng: Generator) -> list[Solid]:
    """Four legs, a rounded body, a neck, a head with ears and a snout, a tail."""
    long, thick, leg = rng.uniform(0.45, 0.7), rng.uniform(0.2, 0.34), rng.uniform(0.25, 0.55)
    fur, belly, dark = any_colour(rng), any_colour(rng), np.full(3, rng.uniform(0.05, 0.25))
    y, foot = leg + thick * 0.8, rng.uniform(0.05, 0.1)
    neck, head = rng.uniform(0.05, 0.5), rng.uniform(0.16, 0.26)
    at = np.array([long + 0.1 + 0.2 * neck, y + 0.12 + neck, 0.0])
    solids = [
        ball([0, y, 0], [long, thick, thick * 0.9], fur),
        ball([0.05, y - 0.05, 0], [long * 0.8, thick, thick * 0.8], belly),
        rod([long * 0.65, y + 0.02, 0], at, thick * 0.55, fur, ROUND, 0.75),
        ball(list(at), [head * 1.1, head, head * 0.9], fur),
        ball([at[0] + head, at[1] - 0.06, 0], [head * 0.7, head * 0.5, head * 0.5], belly),
        rod([-long * 0.9, y + 0.05, 0], [-long - 0.25, y + rng.uniform(-0.2, 0.35), 0], 0.05, fur),
    ]
    for side in (-1, 1):
        for x in (-0.62, 0.62):
            solids.append(
                rod([x * long, y, side * thick * 0.5], [x * long, 0, side * thick * 0.5], foot * 1.3, fur, ROUND, 0.75)
            )
        root = at + np.array([0, head * 0.5, side * head * 0.5])
        ear = at + np.array([-0.03, head * 1.2, side * head * 0.5])
        solids.append(rod(root, ear + np.array([0, rng.uniform(0, 0.2), 0]), 0.07, fur, ELLIPSOID))
        solids.append(ball([at[0] + head * 0.75, at[1] + head * 0.35, side * head * 0.55], [0.04, 0.045, 0.04], dark))
    return solids


def figure(rng: Generator) -> list[Solid]:
    """A standing person or robot: legs, body, arms, head, perhaps a hat."""
    make = box if rng.random() < 0.5 else frustum
    cloth, shirt, skin = any_colour(rng), any_colour(rng), any_colour(rng)
    wide, leg, body, head = (
        rng.uniform(0.2, 0.34),
        rng.uniform(0.2, 0.45),
        rng.uniform(0.22, 0.38),
        rng.uniform(0.17, 0.3),
    )
    shoulder = 2 * leg + 2 * body
    solids = [make([0, 2 * leg + body, 0], [wide, body, wide * 0.65], shirt)]
    for side in (-1, 1):
        solids.append(make([side * wide * 0.5, leg, 0], [wide * 0.38, leg, wide * 0.4], cloth))
        solids.append(box([side * wide * 0.5, 0.04, 0.06], [wide * 0.4, 0.06, wide * 0.6], skin * 0.4))
        hand = np.array(
            [side * (wide + rng.uniform(0.08, 0.3)), shoulder - rng.uniform(0.2, 0.55), rng.uniform(-0.05, 0.25)]
        )
        solids.append(rod([side * wide * 0.95, shoulder - 0.08, 0], hand, wide * 0.28, shirt))
        solids.append(ball(list(hand), [wide * 0.3] * 3, skin))
        solids.append(
            ball([side * head * 0.4, shoulder + head * 1.1, head * 0.85], [0.035, 0.045, 0.03], np.full(3, 0.1))
        )
    solids.append((ball if rng.random() < 0.6 else box)([0, shoulder + head, 0], [head, head, head * 0.9], skin))
    if rng.random() < 0.5:
        hat = any_colour(rng)
        solids.append(frustum([0, shoulder + head * 1.75, 0], [head * 1.35, 0.03, head * 1.35], hat))
        solids.append(frustum([0, shoulder + head * 2.1, 0], [head * 0.85, head * 0.4, head * 0.85], hat, 0.9, -0.1))
    return solids


def lorry(rng: Generator) -> list[Solid]:
    """A cab, a load and wheels: a lorry, a tractor or an engine of a train."""
    high, deep, wheel = rng.uniform(0.24, 0.36), rng.uniform(0.28, 0.36), rng.uniform(0.14, 0.2)
    paint, load, rubber = any_colour(rng), any_colour(rng), np.full(3, rng.uniform(0.1, 0.25))
    glass, long = np.array([0.35, 0.5, 0.6]), rng.uniform(0.5, 0.75)
    floor = wheel + 0.08
    front = long + 0.28
    solids = [
        box([0.1, floor, 0], [front, 0.06, deep * 0.9], rubber * 1.5),
        box([front - 0.15, floor + high, 0], [0.24, high, deep], paint),
        box([front - 0.1, floor + high * 1.45, 0], [0.2, high * 0.3, deep * 1.02], glass),
    ]
    kind = int(rng.integers(3))
    if kind == 0:
        tall = rng.uniform(0.9, 1.5) * high
        solids.append(box([-0.2, floor + tall + 0.05, 0], [long, tall, deep * 1.02], load))
    elif kind == 1:
        solids.append(rod([-0.2 - long, floor + high, 0], [long - 0.2, floor + high, 0], high * 0.85, load))
    else:
        solids += [box([-0.2, floor + 0.15, s * deep * 0.95], [long, 0.12, 0.03], load) for s in (-1, 1)]
        for x in np.linspace(-long, long - 0.4, int(rng.integers(2, 4))):
            size = rng.uniform(0.12, 0.22)
            solids.append(box([x, floor + 0.06 + size, 0], [size, size, deep * 0.7], any_colour(rng)))
    for x in (-0.75 * long, -0.35 * long, front - 0.25):
        solids += [rod([x, wheel, s * (deep - 0.06)], [x, wheel, s * (deep + 0.08)], wheel, rubber) for s in (-1, 1)]
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


MORE_FAMILIES: dict[str, Family] = {
    "sofa": sofa,
    "bed": bed,
    "shelf": shelf,
    "bottle": bottle,
    "vase": vase,
    "boat": boat,
    "plane": plane,
    "tree": tree,
    "tool": tool,
    "animal": animal,
    "figure": figure,
    "lorry": lorry,
    "food": food,
}

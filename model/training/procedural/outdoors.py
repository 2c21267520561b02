"""Families of the street and the field: boat, plane, lorry, tree, animal, figure."""

from __future__ import annotations

import numpy as np

from .families import Generator, any_colour, ball, box, frustum, rod, yaw
from .packing import Solid
from .solids import BOX, ELLIPSOID, ROUND


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

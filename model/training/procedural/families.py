"""The first seven families: six of everyday things, and free compositions of solids.

A family is a function of a random generator that returns solids standing upright (y up), facing +z, in any size.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable

import numpy as np

from .packing import Solid
from .patterns import BANDS
from .solids import BOX, ELLIPSOID, ROUND

Generator = np.random.Generator
Family = Callable[[Generator], list[Solid]]
Vector = np.ndarray | list[float]


def any_colour(rng: Generator) -> np.ndarray:
    """A colour that is not grey and not dark, (3,) RGB in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.15, 0.95), rng.uniform(0.35, 1.0)))


def colour_near(rng: Generator, colour: np.ndarray) -> np.ndarray:
    """A lighter or darker shade of a colour."""
    factor = rng.uniform(0.45, 0.75) if colour.mean() > 0.35 else rng.uniform(1.4, 2.2)
    return np.clip(colour * factor + rng.uniform(-0.05, 0.05, 3), 0, 1)


def box(centre: list[float], half: list[float], colour: np.ndarray, **rest: object) -> Solid:
    return Solid(BOX, np.array(centre, float), np.array(half, float), colour, np.eye(3), **rest)  # type: ignore[arg-type]


def frustum(
    centre: list[float], half: list[float], colour: np.ndarray, a: float = 1, b: float = 0, **rest: object
) -> Solid:
    taper = (a, b, 1.0, 0.0)
    return Solid(ROUND, np.array(centre, float), np.array(half, float), colour, np.eye(3), taper, **rest)  # type: ignore[arg-type]


def ball(centre: list[float], half: list[float], colour: np.ndarray) -> Solid:
    return Solid(ELLIPSOID, np.array(centre, float), np.array(half, float), colour, np.eye(3))


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


def legs(rng: Generator, x: float, z: float, height: float, colour: np.ndarray) -> list[Solid]:
    """Four legs, flush with the corners at (x, z)."""
    thick = rng.uniform(0.04, 0.09)
    make = frustum if rng.random() < 0.5 else box
    x, z = x - thick, z - thick
    corners = [(sx * x, sz * z) for sx in (-1, 1) for sz in (-1, 1)]
    return [make([cx, height / 2, cz], [thick, height / 2, thick], colour) for cx, cz in corners]


def chair(rng: Generator) -> list[Solid]:
    """Four legs, a seat, a back, sometimes arms."""
    width, deep, seat, thick = (
        rng.uniform(0.4, 0.6),
        rng.uniform(0.4, 0.55),
        rng.uniform(0.5, 0.8),
        rng.uniform(0.04, 0.1),
    )
    frame, cloth = any_colour(rng), any_colour(rng)
    tall = rng.uniform(0.35, 0.65)
    solids = [*legs(rng, width, deep, seat, frame), box([0, seat, 0], [width, thick, deep], cloth)]
    back = rng.uniform(0.04, 0.09)
    if rng.random() < 0.6:
        solids.append(box([0, seat + tall, back - deep], [width, tall, back], cloth if rng.random() < 0.5 else frame))
    else:
        bars = int(rng.integers(2, 5))
        for x in np.linspace(-width + 0.06, width - 0.06, bars):
            solids.append(box([x, seat + tall, back - deep], [0.05, tall, back], frame))
        solids.append(box([0, seat + 2 * tall, back - deep], [width, 0.08, back], cloth))
    if rng.random() < 0.35:
        for side in (-1, 1):
            solids.append(box([side * (width - 0.05), seat + 0.35, 0], [0.05, 0.04, deep], frame))
            solids.append(box([side * (width - 0.05), seat + 0.18, deep - 0.05], [0.045, 0.18, 0.045], frame))
    return solids


def table(rng: Generator) -> list[Solid]:
    """A top, round or square, on four legs or on a column, sometimes with something on it."""
    width, deep, height, thick = (
        rng.uniform(0.6, 1.0),
        rng.uniform(0.45, 0.7),
        rng.uniform(0.6, 1.0),
        rng.uniform(0.04, 0.1),
    )
    top, frame = any_colour(rng), any_colour(rng)
    if rng.random() < 0.4:
        solids = [
            frustum([0, height, 0], [width * 0.8, thick, width * 0.8], top),
            frustum([0, height / 2, 0], [0.1, height / 2, 0.1], frame),
            frustum([0, 0.04, 0], [width * 0.5, 0.05, width * 0.5], frame, 0.8, -0.2),
        ]
    else:
        solids = [
            box([0, height, 0], [width, thick, deep], top),
            *legs(rng, width * 0.95, deep * 0.95, height, frame),
        ]
        if rng.random() < 0.4:
            solids.append(box([0, height * 0.35, 0], [width * 0.85, 0.04, deep * 0.85], frame))
    if rng.random() < 0.5:
        x, z, size = rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2), rng.uniform(0.12, 0.22)
        thing = rng.choice(3)
        make = (box, frustum, ball)[thing]
        solids.append(make([x, height + thick + size * 0.95, z], [size, size, size], any_colour(rng)))
    return solids


def lamp(rng: Generator) -> list[Solid]:
    """A foot, a pole and a shade."""
    tall, shade = rng.uniform(0.7, 1.3), rng.uniform(0.3, 0.5)
    metal, cloth = any_colour(rng), any_colour(rng)
    wide, narrow = rng.uniform(0.4, 0.65), rng.uniform(0.15, 0.35)
    foot = rng.uniform(0.3, 0.5)
    solids = [
        frustum([0, 0.05, 0], [foot, 0.06, foot], metal, 0.85, -0.15),
        frustum([0, tall / 2, 0], [0.06, tall / 2, 0.06], metal),
        frustum(
            [0, tall + shade * 0.6, 0],
            [1, shade, 1],
            cloth,
            (wide + narrow) / 2,
            (narrow - wide) / 2,
            **_maybe_stripes(rng),
        ),
    ]
    if rng.random() < 0.4:
        size = rng.uniform(0.14, 0.25)
        solids.append(ball([0, tall * rng.uniform(0.25, 0.6), 0], [size, size, size], any_colour(rng)))
    return solids


def mug(rng: Generator) -> list[Solid]:
    """A hollow cup with a handle, and something in it."""
    radius, height, wall = rng.uniform(0.45, 0.7), rng.uniform(0.5, 0.8), rng.uniform(0.06, 0.1)
    lean = rng.uniform(-0.15, 0.2)
    clay = any_colour(rng)
    inner, level = radius - wall, rng.uniform(-0.3, 0.4)
    filled = inner * (1 - abs(lean) + lean * (level - 2 * wall / height)) * 1.01
    solids = [
        frustum([0, height, 0], [radius, height, radius], clay, 1 - abs(lean), lean, **_maybe_stripes(rng)),
        frustum([0, height + 2 * wall, 0], [inner, height, inner], clay, 1 - abs(lean), lean, carves=True),
        frustum([0, height * (1 + level), 0], [filled, 0.02, filled], any_colour(rng)),
    ]
    size, thick = height * rng.uniform(0.5, 0.65), rng.uniform(0.06, 0.1)
    start = radius * (1 - abs(lean))
    angles = np.linspace(-0.45 * np.pi, 0.45 * np.pi, 7)
    for low, high in itertools.pairwise(angles):
        middle, length = (low + high) / 2, size * (high - low) * 0.6
        turn = np.array([[np.cos(middle), -np.sin(middle), 0], [np.sin(middle), np.cos(middle), 0], [0, 0, 1]])
        centre = np.array([start + 0.75 * size * np.cos(middle), height + size * np.sin(middle), 0])
        solids.append(Solid(BOX, centre, np.array([thick, length, thick]), clay, turn))
    return solids


def house(rng: Generator) -> list[Solid]:
    """Walls, a roof, a door, windows, perhaps a chimney."""
    width, deep, height, roof = (
        rng.uniform(0.5, 0.8),
        rng.uniform(0.4, 0.65),
        rng.uniform(0.35, 0.6),
        rng.uniform(0.25, 0.5),
    )
    wall, tile, wood, glass = (
        any_colour(rng),
        any_colour(rng),
        any_colour(rng),
        np.array([0.55, 0.75, 0.9]) * rng.uniform(0.5, 1),
    )
    over = rng.uniform(1.05, 1.2)
    taper = (0.5, -0.5, 1.0, 0.0) if rng.random() < 0.6 else (0.5, -0.5, 0.65, -0.35)
    solids = [
        box([0, height, 0], [width, height, deep], wall),
        box([0, 2 * height + roof, 0], [width * over, roof, deep * over], tile, taper=taper),
        box([rng.uniform(-0.5, 0.5) * width, 0.25, deep], [0.11, 0.25, 0.03], wood),
    ]
    for x in (-0.6, 0.6):
        solids.append(box([x * width, height * 1.4, deep], [0.12, 0.12, 0.03], glass))
    for side in (-1, 1):
        solids.append(box([side * width, height * 1.3, 0], [0.03, 0.13, 0.16], glass))
    if rng.random() < 0.6:
        solids.append(box([0.5 * width, 2 * height + roof, -0.3 * deep], [0.08, roof, 0.08], wood))
    return solids


def car(rng: Generator) -> list[Solid]:
    """A body, a cabin and four wheels, seen from the side or a quarter."""
    length, height, deep = rng.uniform(0.85, 1.1), rng.uniform(0.14, 0.22), rng.uniform(0.34, 0.44)
    paint, glass, rubber = (
        any_colour(rng),
        np.array([0.3, 0.4, 0.5]) * rng.uniform(0.6, 1.5),
        np.full(3, rng.uniform(0.1, 0.25)),
    )
    wheel, cabin = rng.uniform(0.15, 0.22), rng.uniform(0.16, 0.26)
    floor = wheel + 0.05
    shift, reach = rng.uniform(-0.25, 0.1) * length, rng.uniform(0.45, 0.65) * length
    solids = [
        box([0, floor + height, 0], [length, height, deep], paint),
        box(
            [shift, floor + 2 * height + cabin, 0], [reach, cabin, deep * 0.92], glass, taper=(0.85, -0.15, 0.95, -0.05)
        ),
        box([shift, floor + 2 * height + 2 * cabin, 0], [reach * 0.72, 0.03, deep * 0.86], paint),
    ]
    sideways = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    for x in (-0.6, 0.6):
        for side in (-1, 1):
            centre = np.array([x * length, wheel, side * deep])
            solids.append(Solid(ROUND, centre, np.array([wheel, 0.09, wheel]), rubber, sideways))
    for side in (-1, 1):
        solids.append(box([length, floor + height, side * deep * 0.65], [0.03, 0.06, 0.07], np.array([0.95, 0.9, 0.6])))
    return solids


def composition(rng: Generator) -> list[Solid]:
    """Two to six solids of any kind, each touching one before it."""
    solids: list[Solid] = []
    for _ in range(int(rng.integers(2, 7))):
        half = rng.uniform(0.15, 0.6, 3)
        kind = int(rng.choice([ELLIPSOID, ROUND, BOX]))
        if kind == ROUND:
            half[2] = half[0]
        centre = np.zeros(3)
        if solids:
            other = solids[int(rng.integers(len(solids)))]
            away = rng.normal(size=3)
            away /= np.abs(away).max()
            centre = other.centre + away * (other.half + half) * 0.75
        narrow = rng.uniform(-0.4, 0.4) if rng.random() < 0.4 else 0.0
        taper = (1 - abs(narrow), narrow, 1 - abs(narrow), narrow)
        turn = yaw(rng.uniform(0, 360)) if rng.random() < 0.5 else np.eye(3)
        solids.append(Solid(kind, centre, half, any_colour(rng), turn, taper, **_maybe_stripes(rng)))  # type: ignore[arg-type]
    return solids


def _maybe_stripes(rng: Generator) -> dict[str, object]:
    if rng.random() < 0.75:
        return {}
    second = any_colour(rng)
    return {"second": second, "pattern": BANDS, "layout": (float(rng.integers(1, 4)), 0.0, 0.5, 0.0)}


def yaw(degrees: float) -> np.ndarray:
    """The rotation about y, 3x3."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


FAMILIES: dict[str, Family] = {
    "chair": chair,
    "table": table,
    "lamp": lamp,
    "mug": mug,
    "house": house,
    "car": car,
    "composition": composition,
}

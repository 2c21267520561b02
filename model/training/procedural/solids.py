"""Exact geometry of objects made of solids: inside and colour at points, first hits of rays. Compiled by Numba.

A solid is one of three convex shapes in its own frame, placed by an affine map:

    0  ellipsoid      x^2 + y^2 + z^2 <= 1
    1  round frustum  x^2 + z^2 <= (a + b y)^2, |y| <= 1            (cylinder a = 1, b = 0; cone a = b = -1/2 ... )
    2  tapered box    |x| <= a + b y, |z| <= c + d y, |y| <= 1      (box, prism, pyramid)

A solid may be hollowed by the one that follows it. Light comes from a fixed direction and is part of the colour, so
that a colour belongs to a point whatever the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from .patterns import NONE, amount

ELLIPSOID, ROUND, BOX = 0, 1, 2
LIGHT = np.array([0.4, 0.8, 0.45]) / np.linalg.norm([0.4, 0.8, 0.45])
AMBIENT = 0.55
FAR = 1e9
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solids:
    """B objects of at most P solids each, padded; tensors of a CPU.

    Attributes:
        kind: (B, P) int64, -1 for padding.
        taper: (B, P, 4) float64: a, b, c, d.
        to_local: (B, P, 3, 4) float64, world to the solid's frame.
        half: (B, P, 3) float64, half extents in scene units; the smallest scales the implicit function to a distance.
        ball: (B, P, 4) float64, centre and radius of a ball around the solid.
        colour: (B, P, 2, 3) float64 in [0, 1]; the second one is that of the pattern.
        pattern: (B, P) int64, a number of `patterns.NAMES`.
        layout: (B, P, 4) float64: period, angle, share and seed of the pattern, as in `patterns.amount`.
        carves: (B, P) bool: takes matter from the solid before it instead of adding its own.
    """

    kind: Tensor
    taper: Tensor
    to_local: Tensor
    half: Tensor
    ball: Tensor
    colour: Tensor
    pattern: Tensor
    layout: Tensor
    carves: Tensor

    def __getitem__(self, index: slice | Tensor) -> Solids:
        """The chosen objects."""
        return Solids(*(getattr(self, field.name)[index] for field in fields(self)))

    def __len__(self) -> int:
        return self.kind.shape[0]

    def arrays(self) -> tuple[Any, ...]:
        """The attributes in their order, as NumPy sees them."""
        return tuple(np.ascontiguousarray(getattr(self, field.name).numpy()) for field in fields(self))


def distance_and_colour(solids: Solids, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where points are, and the colour of the nearest surface.

    Args:
        points: (B, N, 3) world positions.

    Returns:
        distance: (B, N), exactly below 0 inside and above 0 outside, and about a distance in world units; colour:
        (B, N, 3) in [0, 1]; float32, on the device of `points`.
    """
    places = points.double().cpu().numpy()
    distance, colour = np.empty(places.shape[:2], np.float32), np.empty(places.shape, np.float32)
    _run(_places, *solids.arrays(), places, distance, colour)
    return torch.from_numpy(distance).to(points.device), torch.from_numpy(colour).to(points.device)


def first_hits(solids: Solids, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays from outside the object meet it first.

    Args:
        origins: (B, N, 3) world.
        directions: (B, N, 3) of unit length.

    Returns:
        distance: (B, N), 1e9 for a miss; colour: (B, N, 3), meaningless for a miss; float32, on the rays' device.
    """
    starts, along = (np.ascontiguousarray(t.double().cpu().numpy()) for t in (origins, directions))
    distance, colour = np.empty(starts.shape[:2], np.float32), np.zeros(starts.shape, np.float32)
    _run(_rays, *solids.arrays(), starts, along, distance, colour)
    return torch.from_numpy(distance).to(origins.device), torch.from_numpy(colour).to(origins.device)


def _run(kernel: Any, *arguments: Any) -> None:
    """Runs a parallel kernel and gives PyTorch its number of threads back.

    Both share one OpenMP, and Numba leaves its own number behind, by which PyTorch would add in another order.
    """
    threads = torch.get_num_threads()
    kernel(*arguments)
    torch.set_num_threads(threads)


@njit(cache=True)
def _affine(m: Array, x: float, y: float, z: float, shift: float) -> tuple[float, float, float]:
    return (
        m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + shift * m[0, 3],
        m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + shift * m[1, 3],
        m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + shift * m[2, 3],
    )


@njit(cache=True)
def _slab(p: float, v: float, half: float, taper: float, oy: float, vy: float) -> tuple[float, float]:
    """Where |p + t v| <= half + taper (oy + t vy) along a ray."""
    enter, leave = -FAR, FAR
    for sign in (1.0, -1.0):
        rate = sign * v - taper * vy
        gap = half + taper * oy - sign * p
        if abs(rate) < 1e-9:
            rate = 1e-9
        crossing = gap / rate
        if rate < 0:
            enter = max(enter, crossing)
        else:
            leave = min(leave, crossing)
    return enter, leave


@njit(cache=True)
def _curved(kind: int, a: float, b: float, o: tuple[float, ...], v: tuple[float, ...]) -> tuple[float, float]:
    """Where a ray is inside an ellipsoid, or inside the endless cone of a round frustum."""
    (ox, oy, oz), (vx, vy, vz) = o, v
    slope, radius = (0.0, 1.0) if kind == ELLIPSOID else (b, a + b * oy)
    qa, qb, qc = vx * vx + vz * vz, ox * vx + oz * vz, ox * ox + oz * oz - radius * radius
    if kind == ELLIPSOID:
        qa, qb, qc = qa + vy * vy, qb + oy * vy, qc + oy * oy
    else:
        qa, qb = qa - (slope * vy) ** 2, qb - radius * slope * vy
    if abs(qa) < 1e-9:
        qa = 1e-9
    discriminant = qb * qb - qa * qc
    if discriminant < 0 and qa > 0:
        return FAR, -FAR
    root = math.sqrt(max(discriminant, 0.0))
    sign = 1.0 if qa > 0 else -1.0
    low, high = (-qb - root * sign) / qa, (-qb + root * sign) / qa
    if qa > 0:
        return low, high
    # Along a ray steeper than the cone's side the inside is beyond the roots: on the nappe whose radius is positive.
    return (high, FAR) if slope * vy > 0 else (-FAR, low)


@njit(cache=True)
def _interval(kind: int, taper: Array, o: tuple[float, ...], v: tuple[float, ...]) -> tuple[float, float]:
    """Where a ray enters and leaves a convex solid in its own frame; (1e9, -1e9) for a miss."""
    a, b, c, d = taper
    if kind == BOX:
        enter, leave = _slab(o[0], v[0], a, b, o[1], v[1])
        other = _slab(o[2], v[2], c, d, o[1], v[1])
        enter, leave = max(enter, other[0]), min(leave, other[1])
    else:
        enter, leave = _curved(kind, a, b, o, v)
    if kind != ELLIPSOID:
        lid = _slab(o[1], v[1], 1.0, 0.0, o[1], v[1])
        enter, leave = max(enter, lid[0]), min(leave, lid[1])
    return (enter, leave) if leave > enter else (FAR, -FAR)


@njit(cache=True)
def _value_and_normal(kind: int, taper: Array, q: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Implicit value and its gradient in the solid's frame."""
    a, b, c, d = taper
    x, y, z = q
    if kind == ELLIPSOID:
        length = max(math.sqrt(x * x + y * y + z * z), 1e-6)
        return length - 1, x / length, y / length, z / length
    lid = abs(y) - 1
    up = 1.0 if y > 0 else -1.0
    if kind == ROUND:
        radius = max(math.sqrt(x * x + z * z), 1e-6)
        mantle = radius - (a + b * y)
        return (mantle, x / radius, -b, z / radius) if mantle >= lid else (lid, 0.0, up, 0.0)
    side_x, side_z = abs(x) - (a + b * y), abs(z) - (c + d * y)
    if max(side_x, side_z) < lid:
        return lid, 0.0, up, 0.0
    if side_x >= side_z:
        return side_x, 1.0 if x > 0 else -1.0, -b, 0.0
    return side_z, 0.0, -d, 1.0 if z > 0 else -1.0


@njit(cache=True)
def _surface(kind: int, half: Array, q: tuple[float, ...], n: tuple[float, ...]) -> tuple[float, float, float]:
    """Surface coordinates u and v in scene units, and the distance from the nearest edge of the face."""
    x, y, z = q[0] * half[0], q[1] * half[1], q[2] * half[2]
    upright = abs(n[1]) < 0.75
    if kind == ELLIPSOID or (kind == ROUND and upright):
        around = math.atan2(q[0], q[2]) * 0.5 * (half[0] + half[2])
        return around, y, half[1] - abs(y) if kind == ROUND else FAR
    if not upright:
        rim = 1 - math.sqrt(q[0] * q[0] + q[2] * q[2]) if kind == ROUND else FAR
        return x, z, rim * half[0] if kind == ROUND else min(half[0] - abs(x), half[2] - abs(z))
    if abs(n[0]) > abs(n[2]):
        return z, y, min(half[2] - abs(z), half[1] - abs(y))
    return x, y, min(half[0] - abs(x), half[1] - abs(y))


@njit(cache=True)
def _shade(
    j: int, kind: Array, taper: Array, to_local: Array, half: Array, colour: Array, pattern: Array, layout: Array,
    carves: Array, x: float, y: float, z: float, out: Array,
) -> None:  # fmt: skip
    """Lit colour of solid j at a point, where that is nearest."""
    m = to_local[j]
    q = _affine(m, x, y, z, 1.0)
    value, nx, ny, nz = _value_and_normal(kind[j], taper[j], q)
    if j + 1 < kind.shape[0] and carves[j + 1]:
        inner = to_local[j + 1]
        hollow, hx, hy, hz = _value_and_normal(kind[j + 1], taper[j + 1], _affine(inner, x, y, z, 1.0))
        if -hollow * half[j + 1].min() > value * half[j].min():
            m, nx, ny, nz = inner, -hx, -hy, -hz
    wx = m[0, 0] * nx + m[1, 0] * ny + m[2, 0] * nz
    wy = m[0, 1] * nx + m[1, 1] * ny + m[2, 1] * nz
    wz = m[0, 2] * nx + m[1, 2] * ny + m[2, 2] * nz
    length = max(math.sqrt(wx * wx + wy * wy + wz * wz), 1e-12)
    facing = max(0.0, (wx * LIGHT[0] + wy * LIGHT[1] + wz * LIGHT[2]) / length)
    lit = AMBIENT + (1 - AMBIENT) * facing
    second = 0.0
    if pattern[j] != NONE:
        u, v, edge = _surface(kind[j], half[j], q, (nx, ny, nz))
        second = amount(pattern[j], u, v, q[1], edge, layout[j, 0], layout[j, 1], layout[j, 2], layout[j, 3])
    for c in range(3):
        out[c] = lit * ((1 - second) * colour[j, 0, c] + second * colour[j, 1, c])


@njit(cache=True, parallel=True)
def _places(
    kind: Array, taper: Array, to_local: Array, half: Array, ball: Array, colour: Array, pattern: Array,
    layout: Array, carves: Array, points: Array, distance: Array, rgb: Array,
) -> None:  # fmt: skip
    count, most = points.shape[1], kind.shape[1]
    for index in prange(points.shape[0] * count):
        i, n = index // count, index % count
        x, y, z = points[i, n]
        best, nearest = FAR, 0
        for j in range(most):
            if kind[i, j] < 0 or carves[i, j]:
                continue
            value = _value_and_normal(kind[i, j], taper[i, j], _affine(to_local[i, j], x, y, z, 1.0))[0]
            value *= half[i, j].min()
            if j + 1 < most and carves[i, j + 1]:
                inner = _affine(to_local[i, j + 1], x, y, z, 1.0)
                hollow = _value_and_normal(kind[i, j + 1], taper[i, j + 1], inner)[0] * half[i, j + 1].min()
                value = max(value, -hollow)
            if value < best:
                best, nearest = value, j
        distance[i, n] = best
        _shade(
            nearest, kind[i], taper[i], to_local[i], half[i], colour[i], pattern[i], layout[i], carves[i],
            x, y, z, rgb[i, n],
        )  # fmt: skip


@njit(cache=True, parallel=True)
def _rays(
    kind: Array, taper: Array, to_local: Array, half: Array, ball: Array, colour: Array, pattern: Array,
    layout: Array, carves: Array, origins: Array, directions: Array, distance: Array, rgb: Array,
) -> None:  # fmt: skip
    count, most = origins.shape[1], kind.shape[1]
    for index in prange(origins.shape[0] * count):
        i, n = index // count, index % count
        x, y, z = origins[i, n]
        dx, dy, dz = directions[i, n]
        best, nearest = FAR, -1
        for j in range(most):
            if kind[i, j] < 0 or carves[i, j]:
                continue
            cx, cy, cz = ball[i, j, 0] - x, ball[i, j, 1] - y, ball[i, j, 2] - z
            along = cx * dx + cy * dy + cz * dz
            if cx * cx + cy * cy + cz * cz - along * along > ball[i, j, 3] ** 2:
                continue
            m = to_local[i, j]
            enter, leave = _interval(kind[i, j], taper[i, j], _affine(m, x, y, z, 1.0), _affine(m, dx, dy, dz, 0.0))
            if j + 1 < most and carves[i, j + 1]:
                m = to_local[i, j + 1]
                gone, back = _interval(
                    kind[i, j + 1], taper[i, j + 1], _affine(m, x, y, z, 1.0), _affine(m, dx, dy, dz, 0.0)
                )
                if gone <= enter < back:
                    enter = back if back < leave else FAR
            if 0 < enter < best:
                best, nearest = enter, j
        distance[i, n] = best
        if nearest >= 0:
            _shade(
                nearest, kind[i], taper[i], to_local[i], half[i], colour[i], pattern[i], layout[i], carves[i],
                x + best * dx, y + best * dy, z + best * dz, rgb[i, n],
            )  # fmt: skip

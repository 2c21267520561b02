"""Exact geometry of objects made of solids: inside and colour at points, first hits of rays. Batched, on any device.

A solid is one of three convex shapes in its own frame, placed by an affine map:

    0  ellipsoid      x^2 + y^2 + z^2 <= 1
    1  round frustum  x^2 + z^2 <= (a + b y)^2, |y| <= 1            (cylinder a = 1, b = 0; cone a = b = -1/2 ... )
    2  tapered box    |x| <= a + b y, |z| <= c + d y, |y| <= 1      (box, prism, pyramid)

A solid may be hollowed by the one that follows it. Light comes from a fixed direction and is part of the colour, so
that a colour belongs to a point whatever the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

ELLIPSOID, ROUND, BOX = 0, 1, 2
_LIGHT = torch.nn.functional.normalize(torch.tensor([0.4, 0.8, 0.45]), dim=0)
_AMBIENT = 0.55
_FAR = 1e9


@dataclass(frozen=True)
class Solids:
    """B objects of at most P solids each, padded.

    Attributes:
        kind: (B, P) int64, -1 for padding.
        taper: (B, P, 4) float32: a, b, c, d.
        to_local: (B, P, 3, 4) float32, world to the solid's frame.
        size: (B, P) float32, smallest half extent in world units; scales the implicit function to a rough distance.
        colour: (B, P, 2, 3) float32 in [0, 1]; the second one is that of the stripes.
        stripes: (B, P) float32, stripes per unit of local y, 0 for none.
        carves: (B, P) bool: takes matter from the solid before it instead of adding its own.
    """

    kind: Tensor
    taper: Tensor
    to_local: Tensor
    size: Tensor
    colour: Tensor
    stripes: Tensor
    carves: Tensor

    def to(self, device: torch.device | str) -> Solids:
        """The same objects on another device."""
        return Solids(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, index: slice | Tensor) -> Solids:
        """The chosen objects."""
        return Solids(*(getattr(self, field.name)[index] for field in fields(self)))

    def __len__(self) -> int:
        return self.kind.shape[0]


def distance_and_colour(solids: Solids, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where points are, and the colour of the nearest surface.

    Args:
        points: (B, N, 3) world positions.

    Returns:
        distance: (B, N), exactly below 0 inside and above 0 outside, and about a distance in world units; colour:
        (B, N, 3) in [0, 1].
    """
    distance, nearest = _hollowed(solids, _implicit(solids, _to_local(solids, points))).min(dim=1)
    return distance, _colour(solids, points, nearest)


def first_hits(solids: Solids, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays from outside the object meet it first.

    Args:
        origins, directions: (B, N, 3) world; directions of unit length.

    Returns:
        distance: (B, N), 1e9 for a miss; colour: (B, N, 3), meaningless for a miss.
    """
    enter, leave = _intervals(solids, origins, directions)
    carve_enter, carve_leave = (_shifted(t, fill) for t, fill in ((enter, _FAR), (leave, -_FAR)))
    hollow = _shifted(solids.carves, False)[..., None] & (carve_enter <= enter) & (enter < carve_leave)
    enter = torch.where(hollow, torch.where(carve_leave < leave, carve_leave, _FAR), enter)
    usable = (solids.kind >= 0) & ~solids.carves
    enter = torch.where(usable[..., None] & (enter > 0), enter, _FAR)
    distance, index = enter.min(dim=1)
    hit = distance < _FAR
    points = origins + torch.where(hit, distance, 0.0)[..., None] * directions
    return distance, _colour(solids, points, index)


def _to_local(solids: Solids, points: Tensor) -> Tensor:
    """(B, N, 3) world to (B, P, N, 3) in each solid's frame."""
    m = solids.to_local
    return points[:, None] @ m[..., :3].transpose(-1, -2) + m[..., None, :, 3]


def _implicit(solids: Solids, local: Tensor) -> Tensor:
    """(B, P, N): below 0 inside, above 0 outside, about a distance in world units."""
    a, b, c, d = (t[..., None] for t in solids.taper.unbind(-1))
    x, y, z = local.unbind(-1)
    lid = y.abs() - 1
    ellipsoid = local.norm(dim=-1) - 1
    round_ = torch.maximum((x * x + z * z).sqrt() - (a + b * y), lid)
    box = torch.maximum(torch.maximum(x.abs() - (a + b * y), z.abs() - (c + d * y)), lid)
    kind = solids.kind[..., None]
    values = torch.where(kind == ELLIPSOID, ellipsoid, torch.where(kind == ROUND, round_, box))
    return torch.where(kind >= 0, values * solids.size[..., None], _FAR)


def _hollowed(solids: Solids, values: Tensor) -> Tensor:
    """Applies the carving solids; what carves is itself nowhere inside."""
    carved_by_next = _shifted(solids.carves, False)[..., None]
    hollow = torch.where(carved_by_next, torch.maximum(values, -_shifted(values, _FAR)), values)
    return torch.where(solids.carves[..., None], _FAR, hollow)


def _shifted(values: Tensor, fill: float | bool) -> Tensor:
    """Each solid's successor along axis 1."""
    return torch.cat([values[:, 1:], torch.full_like(values[:, :1], fill)], dim=1)


def _colour(solids: Solids, points: Tensor, index: Tensor) -> Tensor:
    """Lit colour (B, N, 3) of solid `index` (B, N) at points (B, N, 3)."""
    count = solids.kind.shape[1]

    def of(values: Tensor, which: Tensor) -> Tensor:
        flat = values.reshape(*values.shape[:2], -1)
        taken = flat.gather(1, which[..., None].expand(-1, -1, flat.shape[-1]))
        return taken.reshape(*which.shape, *values.shape[2:])

    def gradient(which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m = of(solids.to_local, which)
        local = (m[..., :3] @ points[..., None])[..., 0] + m[..., 3]
        value, normal = _value_and_normal(of(solids.kind, which), of(solids.taper, which), local)
        return value * of(solids.size, which), (m[..., :3].transpose(-1, -2) @ normal[..., None])[..., 0], local

    value, normal, local = gradient(index)
    successor = (index + 1).clamp(max=count - 1)
    hollow_value, hollow_normal, _ = gradient(successor)
    in_hollow = of(solids.carves, successor) & (successor != index) & (-hollow_value > value)
    normal = torch.nn.functional.normalize(torch.where(in_hollow[..., None], -hollow_normal, normal), dim=-1)
    light = (normal @ _LIGHT.to(normal)).clamp(min=0)
    stripes = of(solids.stripes, index)
    second = (stripes > 0) & (torch.cos(stripes * torch.pi * local[..., 1]) > 0)
    colours = of(solids.colour, index)
    albedo = torch.where(second[..., None], colours[..., 1, :], colours[..., 0, :])
    return albedo * (_AMBIENT + (1 - _AMBIENT) * light)[..., None]


def _value_and_normal(kind: Tensor, taper: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    """Implicit value (...) and its gradient (..., 3) in the solid's frame, of one solid a point."""
    a, b, c, d = taper.unbind(-1)
    x, y, z = local.unbind(-1)
    zero = torch.zeros_like(x)
    radius = (x * x + z * z).sqrt().clamp(min=1e-6)
    length = local.norm(dim=-1).clamp(min=1e-6)
    lid, lid_normal = y.abs() - 1, torch.stack([zero, y.sign(), zero], -1)
    mantle, mantle_normal = radius - (a + b * y), torch.stack([x / radius, -b, z / radius], -1)
    side_x, side_x_normal = x.abs() - (a + b * y), torch.stack([x.sign(), -b, zero], -1)
    side_z, side_z_normal = z.abs() - (c + d * y), torch.stack([zero, -d, z.sign()], -1)

    def larger(u: tuple[Tensor, Tensor], v: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        first = u[0] >= v[0]
        return torch.where(first, u[0], v[0]), torch.where(first[..., None], u[1], v[1])

    round_ = larger((mantle, mantle_normal), (lid, lid_normal))
    box = larger(larger((side_x, side_x_normal), (side_z, side_z_normal)), (lid, lid_normal))
    ball = (length - 1, local / length[..., None])
    is_ball, is_round = kind == ELLIPSOID, kind == ROUND
    value = torch.where(is_ball, ball[0], torch.where(is_round, round_[0], box[0]))
    normal = torch.where(is_ball[..., None], ball[1], torch.where(is_round[..., None], round_[1], box[1]))
    return value, normal


def _intervals(solids: Solids, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave each convex solid, (B, P, N) each; enter = 1e9 for a miss."""
    o = _to_local(solids, origins)
    v = directions[:, None] @ solids.to_local[..., :3].transpose(-1, -2)
    a, b, c, d = (t[..., None] for t in solids.taper.unbind(-1))
    (ox, oy, oz), (vx, vy, vz) = o.unbind(-1), v.unbind(-1)
    is_ball, is_round = (solids.kind[..., None] == kind for kind in (ELLIPSOID, ROUND))

    slope, radius = torch.where(is_ball, 0.0, b), a + b * oy
    qa = vx * vx + vz * vz + torch.where(is_ball, vy * vy, -((slope * vy) ** 2))
    qb = ox * vx + oz * vz + torch.where(is_ball, oy * vy, -radius * slope * vy)
    qc = ox * ox + oz * oz + torch.where(is_ball, oy * oy - 1, -(radius**2))
    qa = torch.where(qa.abs() < 1e-9, 1e-9, qa)
    discriminant = qb * qb - qa * qc
    root = discriminant.clamp(min=0).sqrt()
    low, high = (-qb - root * qa.sign()) / qa, (-qb + root * qa.sign()) / qa
    # Along a ray steeper than the cone's side the inside is beyond the roots: on the nappe whose radius is positive.
    opening = slope * vy > 0
    steep = qa < 0
    enter_q = torch.where(steep, torch.where(opening, high, -_FAR), low)
    leave_q = torch.where(steep, torch.where(opening, _FAR, low), high)
    missed = (discriminant < 0) & ~steep
    enter_q, leave_q = torch.where(missed, _FAR, enter_q), torch.where(missed, -_FAR, leave_q)

    lid = _slab(oy, vy, 1.0, 0.0, oy, vy)
    side_x, side_z = _slab(ox, vx, a, b, oy, vy), _slab(oz, vz, c, d, oy, vy)
    box = torch.maximum(side_x[0], side_z[0]), torch.minimum(side_x[1], side_z[1])
    curved = is_ball | is_round
    enter, leave = torch.where(curved, enter_q, box[0]), torch.where(curved, leave_q, box[1])
    enter = torch.where(is_ball, enter, torch.maximum(enter, lid[0]))
    leave = torch.where(is_ball, leave, torch.minimum(leave, lid[1]))
    hit = leave > enter
    return torch.where(hit, enter, _FAR), torch.where(hit, leave, -_FAR)


def _slab(
    position: Tensor, velocity: Tensor, half: Tensor | float, taper: Tensor | float, oy: Tensor, vy: Tensor
) -> tuple[Tensor, Tensor]:
    """Where |position + t velocity| <= half + taper (oy + t vy) along a ray."""
    enter, leave = torch.full_like(position, -_FAR), torch.full_like(position, _FAR)
    for sign in (1.0, -1.0):
        rate = sign * velocity - taper * vy
        gap = half + taper * oy - sign * position
        rate = torch.where(rate.abs() < 1e-9, 1e-9, rate)
        crossing = gap / rate
        enter = torch.where(rate < 0, torch.maximum(enter, crossing), enter)
        leave = torch.where(rate > 0, torch.minimum(leave, crossing), leave)
    return enter, leave


@dataclass
class Solid:
    """One solid as a family describes it, before objects are packed into tensors.

    Attributes:
        kind: ELLIPSOID, ROUND or BOX.
        centre: world position; half: half extents along the solid's own axes.
        colour: RGB in [0, 1].
        rotation: 3x3, local to world.
        taper: a, b, c, d.
        second, stripes: colour and frequency of stripes along the local y axis.
        carves: hollows the solid before it.
    """

    kind: int
    centre: np.ndarray
    half: np.ndarray
    colour: np.ndarray
    rotation: np.ndarray
    taper: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 0.0)
    second: np.ndarray | None = None
    stripes: float = 0.0
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
    """Lists of solids to padded float32 tensors."""
    count, most = len(objects), max(map(len, objects))
    kind = np.full((count, most), -1)
    taper, to_local = np.zeros((count, most, 4), np.float32), np.zeros((count, most, 3, 4), np.float32)
    size, stripes = np.ones((count, most), np.float32), np.zeros((count, most), np.float32)
    colour, carves = np.zeros((count, most, 2, 3), np.float32), np.zeros((count, most), bool)
    for i, solids in enumerate(objects):
        for j, s in enumerate(solids):
            kind[i, j], taper[i, j], size[i, j] = s.kind, s.taper, s.half.min()
            inverse = (s.rotation / s.half).T
            to_local[i, j] = np.concatenate([inverse, -(inverse @ s.centre)[:, None]], axis=1)
            colour[i, j] = s.colour, s.colour if s.second is None else s.second
            stripes[i, j], carves[i, j] = s.stripes, s.carves
    return Solids(*map(torch.from_numpy, (kind, taper, to_local, size, colour, stripes, carves)))

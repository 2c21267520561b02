"""Cutting an object out from a background that is even or changes smoothly, without a network.

    image -> Oklab -> quadratic surface fitted to the border -> difference from it
          -> what hangs together with the border and differs little, or is a soft shadow: background
          -> holes of the background's own colour, islands -> soft alpha and the object's own colour at the edge

A shadow darkens the background without changing its hue, and has no sharp edge; an object's outline has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..array_types import Array, Mask
from .regions import blurred, components, dilated, eroded, touching_border

# Side that masks are found at.
_SIDE = 512
# Share of the side that the border's ring takes.
_RING = 0.04
# Oklab distances: least difference that counts, and how many times the border's own noise it has to be.
_DIFFERENT, _TIMES_NOISE = 0.012, 2.0
# A shadow darkens by no more, turns the hue by no more, and has no sharper edge (second and first difference).
_DARKEST, _HUE, _SHARP, _STEEP = 0.4, 0.02, 0.003, 0.012
# The background is followed through gaps that are wider than this many pixels to either side.
_GAP = 2
# Islands of less than this share of the largest are dropped; so are holes of fewer pixels.
_ISLAND, _HOLE = 0.02, 4e-4
# Above this distance the border is no even background; below these shares of it, or of an object, one is unsure.
_UNEVEN = 0.06
_EXPLAINED = 0.6
_LEAST_OBJECT, _MOST_OBJECT = 0.004, 0.85


@dataclass(frozen=True)
class Cutout:
    """An object cut out from its background.

    Attributes:
        rgba: (4, H, W) float32 in [0, 1], alpha not premultiplied, the object's own colour at its edge.
        confidence: 0 to 1, how much of the border the even background explains.
    """

    rgba: Array
    confidence: float


def cut_out(rgb: Array) -> Cutout:
    """Cuts an object out.

    Args:
        rgb: (3, H, W) in [0, 1], sRGB.
    """
    height, width = rgb.shape[1:]
    shrink = min(1.0, _SIDE / max(height, width))
    small = _resized(rgb, (max(8, round(height * shrink)), max(8, round(width * shrink)))).transpose(1, 2, 0)
    difference, ring, spread = _difference(to_oklab(np.clip(small, 0, 1)))
    inliers = ring & (np.linalg.norm(difference, axis=-1) < 4 * spread)
    smooth = blurred(difference, 1)
    distance = np.linalg.norm(smooth, axis=-1)
    noise = float(np.percentile(distance[inliers], 95)) if inliers.any() else 1.0
    different = max(_DIFFERENT, _TIMES_NOISE * noise)
    free = (distance < different) | _shadow(difference, inliers, noise)
    background = dilated(touching_border(eroded(free, _GAP)), _GAP) & free
    background |= _holes(difference, distance, background, noise, different)
    inside = _without_islands(~background)
    alpha, colour = _edge(small, inside)
    confidence = _confidence(background[ring], inside, different)
    full = np.clip(_resized(np.concatenate([colour.transpose(2, 0, 1), alpha[None]]), (height, width)), 0, 1)
    # Where the object is solid the image itself is sharper than what came back from the smaller one.
    solid = full[3] >= 0.98
    full[:3][:, solid] = rgb[:, solid]
    return Cutout(full, confidence)


def to_oklab(rgb: Array) -> Array:
    """sRGB (..., 3) in [0, 1] to Oklab (Ottosson 2020), where equal distances look equally different."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(_TO_CONES, np.float32).T
    return np.asarray(np.cbrt(cones) @ np.array(_TO_OKLAB, np.float32).T, np.float32)


_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def _difference(lab: Array) -> tuple[Array, Mask, float]:
    """Difference (H, W, 3) from the surface that fits the border, the border's ring, and its robust deviation.

    Iteratively reweighted least squares with Cauchy weights, so that an object which reaches the border counts little.
    """
    height, width = lab.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height * 2 - 1, x / width * 2 - 1
    basis = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    edge = max(2, round(_RING * max(height, width)))
    ring = np.ones((height, width), bool)
    ring[edge:-edge, edge:-edge] = False
    places, colours = basis[ring].astype(np.float64), lab[ring].astype(np.float64)
    weights, spread = np.ones((len(places), 1)), 0.0
    for _ in range(12):
        surface, *_ = np.linalg.lstsq(places * weights, colours * weights, rcond=None)
        residual = np.linalg.norm(colours - places @ surface, axis=1)
        spread = max(1.4826 * float(np.median(residual)), 2e-3)
        weights = 1 / (1 + (residual / (2 * spread)) ** 2)[:, None]
    return lab - (basis @ surface).astype(np.float32), ring, spread


def _shadow(difference: Array, inliers: Mask, noise: float) -> Mask:
    """What may be a soft shadow on the background."""
    light = difference[..., 0]
    once, twice = blurred(light, 1), blurred(light, 1, 2)
    sharp = np.abs(once - blurred(light, 2, 2))
    steep = np.hypot(*np.gradient(twice))
    hue = np.linalg.norm(blurred(difference, 2)[..., 1:], axis=-1)
    sharp_noise, steep_noise = (float(np.percentile(v[inliers], 95)) if inliers.any() else 0.0 for v in (sharp, steep))
    return (
        (twice < 0)
        & (twice > -_DARKEST)
        & (hue < max(_HUE, 2 * noise))
        & (sharp < max(_SHARP, 2.5 * sharp_noise))
        & (steep < max(_STEEP, 3 * steep_noise))
    )


def _holes(difference: Array, distance: Array, background: Mask, noise: float, different: float) -> Mask:
    """Enclosed regions of the background's own colour: between a chair's legs, not a white object's flat side."""
    found = np.zeros_like(background)
    labels = components(eroded((distance < max(0.5 * different, 1.2 * noise)) & ~background, 1))
    numbers, counts = np.unique(labels[labels >= 0], return_counts=True)
    for number in numbers[counts > max(12, _HOLE * labels.size)]:
        region = labels == number
        if np.linalg.norm(difference[region].mean(0)) < max(_DIFFERENT / 3, 0.5 * noise):
            found |= dilated(region, _GAP) & (distance < different)
    return found


def _without_islands(inside: Mask) -> Mask:
    labels = components(inside)
    numbers, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not numbers.size:
        return inside
    return np.isin(labels, numbers[counts >= _ISLAND * counts.max()])


def _edge(small: Array, inside: Mask) -> tuple[Array, Array]:
    """Alpha (H, W) and the object's own colours (H, W, 3).

    Near the outline a pixel is a mixture of the object's colour and the background's, both taken from near by; alpha is
    where it lies on the line between them.
    """
    core, beyond = eroded(inside, 3), eroded(~inside, 2)
    core_weight, beyond_weight = (blurred(m.astype(np.float32), r, 2)[..., None] for m, r in ((core, 4), (beyond, 6)))
    own = blurred(small * core[..., None], 4, 2) / np.maximum(core_weight, 1e-6)
    behind = blurred(small * beyond[..., None], 6, 2) / np.maximum(beyond_weight, 1e-6)
    line = own - behind
    length = np.square(line).sum(-1)
    share = ((small - behind) * line).sum(-1) / np.maximum(length, 1e-4)
    known = (core_weight[..., 0] > 1e-3) & (beyond_weight[..., 0] > 1e-3) & (length > 0.01)
    band = dilated(inside, 2) & ~core & known
    alpha = np.where(band, np.clip(share, 0, 1), inside.astype(np.float32)).astype(np.float32)
    unmixed = (small - (1 - alpha[..., None]) * behind) / np.maximum(alpha[..., None], 0.1)
    mixed = band & (alpha < 0.98)
    colour = np.where(mixed[..., None], np.clip(np.where(alpha[..., None] > 0.3, unmixed, own), 0, 1), small)
    # Beyond the outline the object's colour goes on, so that enlarging brings none of the background back.
    outside = (~inside & (core_weight[..., 0] > 1e-3))[..., None]
    return alpha, np.where(outside, own, colour).astype(np.float32)


def _confidence(border: Mask, inside: Mask, different: float) -> float:
    """How sure the cut is: the share of the border that is explained, 0 where there is no even border or no object."""
    share = float(inside.mean())
    if different > _UNEVEN or not _LEAST_OBJECT < share < _MOST_OBJECT:
        return 0.0
    explained = float(border.mean())
    # An object that fills much of the border is cut off by it, and a border that is half object explains nothing.
    return max(0.0, min(1.0, (explained - (1 - _EXPLAINED)) / _EXPLAINED))


def _resized(planes: Array, size: tuple[int, int]) -> Array:
    """(C, H, W) at another (height, width): averaged where it shrinks, smooth where it grows."""
    filters = Image.Resampling.BOX if size[0] < planes.shape[1] else Image.Resampling.BILINEAR
    return np.stack(
        [np.asarray(Image.fromarray(np.ascontiguousarray(p, np.float32)).resize(size[::-1], filters)) for p in planes]
    )

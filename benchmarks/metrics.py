"""Figures of reconstruction quality: images against images, surfaces against surfaces, and their summary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity

from model.training.data.drawing import over_white
from model.training.procedural.solids import Solids, first_hits
from runtime.array_types import Array
from runtime.errors import OptionError
from runtime.scene import Scene

Figures = dict[str, float]

_SURFACE_POINTS, _NEAR = 10_000, 0.05


def view_figures(drawn: Array, alpha: Array, truth: Array) -> Figures:
    """Figures of one view: drawn (S, S, 3) and alpha (S, S) against the truth (S, S, 4)."""
    target, solid, true_solid = over_white(truth), alpha > 0.5, truth[..., 3] > 0.5
    squared = np.square(drawn - target).mean(-1)
    union = solid | true_solid
    return {
        "psnr": decibel(float(squared.mean())),
        "psnr_object": decibel(float(squared[union].mean())) if union.any() else decibel(0),
        "ssim": float(
            structural_similarity(
                drawn, target, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
        ),
        "iou": float((solid & true_solid).sum() / max(1, union.sum())),
        "sharpness": _steepness(drawn, true_solid) / max(_steepness(target, true_solid), 1e-6),
    }  # fmt: skip


def _steepness(picture: Array, where: NDArray[np.bool_]) -> float:
    """Mean length of the grey image's gradient in some of its pixels."""
    down, across = np.gradient(picture.mean(-1))
    return float(np.hypot(down, across)[where].mean()) if where.any() else 0.0


def decibel(error: float) -> float:
    """Mean squared error to PSNR with peak 1, at most 60 dB."""
    return float(min(60.0, -10 * np.log10(max(error, 1e-12))))


def surface_points(solids: Solids) -> Array:
    """Points where random rays from all around first meet the object: its visible surface, (N, 3)."""
    rng = np.random.default_rng(0)
    origins = rng.standard_normal((1, 8 * _SURFACE_POINTS, 3))
    origins = 2 * origins / np.linalg.norm(origins, axis=-1, keepdims=True)
    toward = rng.uniform(-0.8, 0.8, origins.shape) - origins
    toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
    start, along = torch.from_numpy(origins).float(), torch.from_numpy(toward).float()
    distance, _ = first_hits(solids, start, along)
    points = (start + distance[..., None] * along)[0, distance[0] < 4]
    return points[:_SURFACE_POINTS].numpy()


def surface_figures(scene: Scene, surface: Array, resolution: int = 64) -> Figures:
    """Chamfer distance and F-score of the extracted surface; the worst possible where there is none."""
    try:
        mesh = scene.mesh(resolution)
    except OptionError:
        return {"chamfer": 4.0, "fscore": 0.0}
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(areas), _SURFACE_POINTS, p=areas / areas.sum())
    weights = rng.dirichlet((1, 1, 1), _SURFACE_POINTS)
    points = np.einsum("nk,nkd->nd", weights, corners[chosen])
    forth, back = cKDTree(surface).query(points)[0], cKDTree(points).query(surface)[0]
    precision, recall = (forth < _NEAR).mean(), (back < _NEAR).mean()
    fscore = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"chamfer": float(forth.mean() + back.mean()), "fscore": float(fscore)}


def mean_figures(figures: Sequence[Figures]) -> Figures:
    return {key: float(np.mean([f[key] for f in figures])) for key in figures[0]}


def summary(figures: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Mean and 95 % bootstrap interval (2,000 resamples of the objects) of every figure."""
    rng = np.random.default_rng(0)
    result = {}
    # The first objects may have figures that the rest lack.
    for key in figures[0]:
        values = np.array([f[key] for f in figures if key in f])
        means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        result[key] = {"mean": float(values.mean()), "low": float(low), "high": float(high)}
    return result


class PatchDistance:
    """Sliced Wasserstein distance of Laplacian pyramids' patches between drawn and true views (Karras et al. 2018).

    It tells whether images are as detailed as true ones, wherever the details are: what a sampler is for, and what
    PSNR does not see. Patches are of 7x7 pixels, their middles in the true silhouette.
    """

    _PATCHES, _SIDE, _SMALLEST, _DIRECTIONS = 24, 7, 16, 256

    def __init__(self) -> None:
        self._drawn: dict[int, list[Array]] = defaultdict(list)
        self._true: dict[int, list[Array]] = defaultdict(list)
        self._rng = np.random.default_rng(0)

    def add(self, drawn: Array, truth: Array) -> None:
        """Takes patches of a drawn view (S, S, 3) and, at the same places, of the true one (S, S, 4)."""
        places = np.argwhere(truth[..., 3] > 0.5)
        if not len(places):
            return
        pairs = zip(_pyramid(drawn, self._SMALLEST), _pyramid(over_white(truth), self._SMALLEST), strict=True)
        for level, (ours, theirs) in enumerate(pairs):
            side = ours.shape[0]
            chosen = places[self._rng.integers(0, len(places), self._PATCHES)] * side // drawn.shape[0]
            for pixels, into in ((ours, self._drawn), (theirs, self._true)):
                wide = np.pad(pixels, ((3, 3), (3, 3), (0, 0)), mode="edge")
                windows = np.lib.stride_tricks.sliding_window_view(wide, (self._SIDE, self._SIDE), axis=(0, 1))
                into[level].append(windows[chosen[:, 0], chosen[:, 1]].reshape(self._PATCHES, -1).astype(np.float32))

    def value(self) -> float:
        """The mean over the levels, times 1,000; 0 for the same patches."""
        distances = []
        for level, parts in self._drawn.items():
            ours, theirs = np.concatenate(parts), np.concatenate(self._true[level])
            # As in the paper, by channel; of the true patches alone, so that rows compare.
            theirs, ours = (values.reshape(len(values), 3, -1) for values in (theirs, ours))
            mean, spread = theirs.mean((0, 2), keepdims=True), theirs.std((0, 2), keepdims=True) + 1e-8
            ways = self._rng.standard_normal((3 * self._SIDE**2, self._DIRECTIONS)).astype(np.float32)
            ways /= np.linalg.norm(ways, axis=0)
            along = [np.sort(((v - mean) / spread).reshape(len(v), -1) @ ways, axis=0) for v in (ours, theirs)]
            distances.append(np.abs(along[0] - along[1]).mean())
        return 1000 * float(np.mean(distances)) if distances else 0.0


def _pyramid(picture: Array, smallest: int) -> list[Array]:
    """What each halving of the image takes away, and what is left; sides down to `smallest`."""
    levels = []
    while picture.shape[0] >= 2 * smallest and picture.shape[0] % 2 == 0:
        side = picture.shape[0] // 2
        small = picture.reshape(side, 2, side, 2, 3).mean((1, 3))
        levels.append(picture - small.repeat(2, axis=0).repeat(2, axis=1))
        picture = small
    return [*levels, picture]

"""Figures of reconstruction quality: pictures against pictures, surfaces against surfaces, and their summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity

from model.training.solids import Solids, first_hits
from runtime.errors import OptionError
from runtime.scene import Scene

Array = NDArray[np.float32]
Figures = dict[str, float]

_SURFACE_POINTS, _NEAR = 10_000, 0.05


def over_white(rgba: Array) -> Array:
    """(..., 4) not premultiplied to (..., 3) over white."""
    return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])


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
    }  # fmt: skip


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
    for key in figures[0]:
        values = np.array([f[key] for f in figures])
        means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        result[key] = {"mean": float(values.mean()), "low": float(low), "high": float(high)}
    return result

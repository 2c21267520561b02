"""What several test files share: a tiny model, its exported bundle, and a runtime on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import runtime
from export.parity import TOLERANCE
from export.to_onnx import export_bundle
from model import WaveletTriplaneDiffusion

TINY = {"triplane_channels": 8, "resolution": 16, "hidden_dim": 32, "time_embed_dim": 32, "num_diffusion_steps": 100}


@pytest.fixture(scope="session")
def tiny_model() -> WaveletTriplaneDiffusion:
    """A model of 16x16 planes, with band statistics that a mistake in standardising would show."""
    torch.manual_seed(1)
    model = WaveletTriplaneDiffusion(**TINY).eval()
    for mean, std in ((model.coarse_gen.mean, model.coarse_gen.std), (model.detail_mean, model.detail_std)):
        mean.uniform_(-0.5, 0.5)
        std.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model: WaveletTriplaneDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, exported; parity has been checked on the way."""
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    export_bundle(tiny_model, out, "tiny", trained=True)
    return out


@pytest.fixture(scope="session")
def tiny_variants(tiny_model: WaveletTriplaneDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in every precision."""
    out = tmp_path_factory.mktemp("variants") / "tiny"
    export_bundle(tiny_model, out, "tiny", trained=True, precisions=list(TOLERANCE))
    return out


@pytest.fixture(scope="session")
def tiny_runtime(tiny_bundle: Path) -> Iterator[runtime.Runtime]:
    """A runtime on the tiny bundle."""
    with runtime.load(tiny_bundle, backend="cpu") as rt:
        yield rt


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """Four opaque pictures of the tiny model's input size: smooth, and all different."""
    y, x = np.mgrid[0:64, 0:64] / 64
    waves = [np.stack([np.sin((3 + k) * x + k), np.cos((2 + k) * y), np.sin(5 * x * y + k)], -1) for k in range(4)]
    return [np.round(127.5 + 127.5 * wave).astype(np.uint8) for wave in waves]

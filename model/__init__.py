"""The PyTorch model: the readable reference that is trained and exported."""

from .coarse import CoarseTriplaneGen
from .config import PRESETS, ModelConfig
from .diffusion import DetailDiffusion
from .pipeline import WaveletTriplaneDiffusion
from .renderer import TriplaneRenderer
from .wavelet import WaveletTransform

__all__ = [
    "PRESETS",
    "CoarseTriplaneGen",
    "DetailDiffusion",
    "ModelConfig",
    "TriplaneRenderer",
    "WaveletTransform",
    "WaveletTriplaneDiffusion",
]

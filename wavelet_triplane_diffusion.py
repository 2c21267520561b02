"""The specification's import name. Run as a script it is the quick test: shapes, and the wavelet's round trip."""

import torch

from model import CoarseTriplaneGen, DetailDiffusion, TriplaneRenderer, WaveletTransform, WaveletTriplaneDiffusion
from model.losses import (
    Targets,
    compute_loss,
    diffusion_loss,
    diffusion_training_step,
    reconstruction_loss,
    rendering_loss,
)

__all__ = [
    "CoarseTriplaneGen",
    "DetailDiffusion",
    "Targets",
    "TriplaneRenderer",
    "WaveletTransform",
    "WaveletTriplaneDiffusion",
    "compute_loss",
    "diffusion_loss",
    "diffusion_training_step",
    "reconstruction_loss",
    "rendering_loss",
]


def main() -> None:
    """Runs an untrained medium model once on noise and prints what comes out."""
    torch.manual_seed(0)
    model = WaveletTriplaneDiffusion(triplane_channels=32).eval()
    print(f"parameters               : {sum(p.numel() for p in model.parameters()):,} (untrained)")
    with torch.no_grad():
        outputs = model(torch.rand(1, 3, 256, 256) * 2 - 1, return_intermediate=True)
    for name in ("input_images", "triplane_LL", "triplane_details", "triplane_highres", "rendered_image"):
        print(f"{name:25s}: {tuple(outputs[name].shape)}")
    x = torch.randn(1, 32, 128, 128)
    error = (WaveletTransform().idwt2d(*WaveletTransform().dwt2d(x)) - x).abs().mean()
    print(f"reconstruction error     : {error.item():.2e} (mean absolute, unit noise)")


if __name__ == "__main__":
    main()

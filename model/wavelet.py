"""The orthonormal Haar wavelet as a differentiable convolution: the reference for `runtime.wavelet`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WaveletTransform(nn.Module):
    """2-D Haar transform, every channel by itself; LH is low-pass along H and high-pass along W."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        low, high = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
        pairs = ((low, low), (low, high), (high, low), (high, high))
        self.register_buffer(
            "filters", torch.stack([torch.outer(h, w) for h, w in pairs])[:, None] / 2, persistent=False
        )

    def dwt2d(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x: (B, C, H, W), H and W even. Returns LL, LH, HL, HH, each (B, C, H/2, W/2)."""
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            raise ValueError(f"dwt2d needs an even height and width, not {tuple(x.shape[-2:])}: pad first.")
        b, c, h, w = x.shape
        bands = F.conv2d(x.reshape(b * c, 1, h, w), self.filters.to(x.dtype), stride=2)
        ll, lh, hl, hh = bands.reshape(b, c, 4, h // 2, w // 2).unbind(2)
        return ll, lh, hl, hh

    def bilinear_details(self, ll: Tensor) -> Tensor:
        """The details that bilinear upsampling of LL implies: the best free guess, where 0 would give steps.

        Args:
            ll: (B, C, H, W).

        Returns:
            (B, 3C, H, W): LH, HL and HH. The LL band of the result of `idwt2d` with them stays `ll`.
        """
        return torch.cat(self.dwt2d(F.interpolate(ll / 2, scale_factor=2.0, mode="bilinear"))[1:], dim=1)

    def idwt2d(self, LL: Tensor, LH: Tensor, HL: Tensor, HH: Tensor) -> Tensor:
        """Four bands (B, C, h, w). Returns (B, C, 2h, 2w); the exact inverse of `dwt2d`."""
        if not LL.shape == LH.shape == HL.shape == HH.shape:
            raise ValueError(
                f"idwt2d needs four bands of one shape, not {[tuple(band.shape) for band in (LL, LH, HL, HH)]}."
            )
        b, c, h, w = LL.shape
        bands = torch.stack([LL, LH, HL, HH], dim=2).reshape(b * c, 4, h, w)
        return F.conv_transpose2d(bands, self.filters.to(LL.dtype), stride=2).reshape(b, c, 2 * h, 2 * w)

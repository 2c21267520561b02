"""Orthonormal Haar transform of the last two axes, in NumPy.

Signs and names: high-pass is the even sample minus the odd one. The first letter of a band is the filter along H,
the second along W, so LH holds what changes from column to column. In PyWavelets' terms (`pywt.dwt2(x, "haar")`):
LL = cA, LH = cV, HL = cH, HH = cD.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

Array = NDArray[np.floating]


def dwt2d(x: Array) -> tuple[Array, Array, Array, Array]:
    """Splits `x` into its four half-resolution Haar bands.

    Args:
        x: floating (..., H, W), H and W even.

    Returns:
        LL, LH, HL, HH, each (..., H/2, W/2) in the dtype of `x`.

    Raises:
        OptionError: H or W is odd, or the dtype is not floating.
    """
    if x.ndim < 2 or x.shape[-1] % 2 or x.shape[-2] % 2 or x.dtype.kind != "f":
        raise OptionError(
            f"dwt2d needs a floating array of at least two axes, the last two even, not {x.shape} of {x.dtype}.",
            "Convert it to float32, or pad it to even sizes.",
        )
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    half = x.dtype.type(0.5)
    return (
        (low[..., 0::2] + low[..., 1::2]) * half,
        (low[..., 0::2] - low[..., 1::2]) * half,
        (high[..., 0::2] + high[..., 1::2]) * half,
        (high[..., 0::2] - high[..., 1::2]) * half,
    )


def idwt2d(ll: Array, lh: Array, hl: Array, hh: Array) -> Array:
    """Joins four Haar bands; the exact inverse of `dwt2d`.

    Args:
        ll: floating (..., h, w), low-pass along both axes.
        lh: of the same shape, high-pass along the width.
        hl: of the same shape, high-pass along the height.
        hh: of the same shape, high-pass along both.

    Returns:
        (..., 2h, 2w) in the dtype of `ll`.

    Raises:
        OptionError: the bands differ in shape, or are not floating.
    """
    if not ll.shape == lh.shape == hl.shape == hh.shape:
        raise OptionError(
            f"idwt2d needs four bands of one shape, not {ll.shape}, {lh.shape}, {hl.shape}, {hh.shape}.",
            "Take all four from one dwt2d, or split the stacked details into three equal parts.",
        )
    if any(band.dtype.kind != "f" for band in (ll, lh, hl, hh)):
        raise OptionError("idwt2d needs floating bands.", "Convert them to float32.")
    out = np.empty((*ll.shape[:-2], 2 * ll.shape[-2], 2 * ll.shape[-1]), ll.dtype)
    half = ll.dtype.type(0.5)
    for row, vertical in ((0, 1), (1, -1)):
        low = (ll + hl) if vertical > 0 else (ll - hl)
        high = (lh + hh) if vertical > 0 else (lh - hh)
        out[..., row::2, 0::2] = (low + high) * half
        out[..., row::2, 1::2] = (low - high) * half
    return out

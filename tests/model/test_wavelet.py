"""The differentiable Haar transform: round trip, PyWavelets' bands, gradients, and the runtime's transform."""

import numpy as np
import pytest
import pywt
import torch

from model import WaveletTransform
from runtime import wavelet as runtime_wavelet


@pytest.mark.parametrize("channels", [1, 3, 8, 16, 32, 64])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_round_trip(channels, batch):
    transform = WaveletTransform()
    x = torch.randn(batch, channels, 12, 20)
    bands = transform.dwt2d(x)
    assert all(band.shape == (batch, channels, 6, 10) for band in bands)
    assert (transform.idwt2d(*bands) - x).abs().mean() < 1e-6


def test_bands_are_those_of_pywavelets_and_of_the_runtime():
    x = torch.randn(3, 5, 8, 6, dtype=torch.float64)
    ours = [band.numpy() for band in WaveletTransform().dwt2d(x)]
    approximation, (horizontal, vertical, diagonal) = pywt.dwt2(x.numpy(), "haar")
    for a, b, c in zip(
        ours, (approximation, vertical, horizontal, diagonal), runtime_wavelet.dwt2d(x.numpy()), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-12)
        np.testing.assert_allclose(a, c, atol=1e-12)


def test_gradients_pass_through_both_directions():
    transform = WaveletTransform().double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: transform.dwt2d(t), (x,))
    bands = tuple(torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(4))
    assert torch.autograd.gradcheck(transform.idwt2d, bands)


def test_odd_sizes_and_unlike_bands_are_refused():
    with pytest.raises(ValueError, match="even"):
        WaveletTransform().dwt2d(torch.zeros(1, 1, 3, 4))
    band = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="one shape"):
        WaveletTransform().idwt2d(band, band, band, torch.zeros(1, 1, 2, 3))

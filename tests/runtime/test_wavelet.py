"""The NumPy Haar transform against PyWavelets, and its round trip."""

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

import runtime
from runtime.wavelet import dwt2d, idwt2d


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5), st.sampled_from([1, 3, 8, 16, 32, 64]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)
)
def test_round_trip_is_exact_for_any_leading_shape(batch, channels, half_height, half_width, seed):
    x = np.random.default_rng(seed).standard_normal((batch, channels, 2 * half_height, 2 * half_width), np.float32)
    back = idwt2d(*dwt2d(x))
    assert back.dtype == np.float32
    assert np.abs(back - x).mean() < 1e-6


def test_bands_are_those_of_pywavelets():
    x = np.random.default_rng(0).standard_normal((2, 3, 10, 14))
    approximation, (horizontal, vertical, diagonal) = pywt.dwt2(x, "haar")
    for ours, theirs in zip(dwt2d(x), (approximation, vertical, horizontal, diagonal), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_columns_that_alternate_are_all_in_lh():
    x = np.tile([1.0, -1.0], (4, 3))
    ll, lh, hl, hh = dwt2d(x)
    assert (lh == 2).all()
    assert not ll.any()
    assert not hl.any()
    assert not hh.any()


def test_zero_details_give_nearest_neighbour_over_two():
    ll = np.random.default_rng(1).standard_normal((2, 3, 3)).astype(np.float32)
    zero = np.zeros_like(ll)
    np.testing.assert_allclose(idwt2d(ll, zero, zero, zero), ll.repeat(2, -1).repeat(2, -2) / 2)


def test_odd_sizes_and_unlike_bands_are_refused():
    with pytest.raises(runtime.OptionError, match="even"):
        dwt2d(np.zeros((3, 4)))
    with pytest.raises(runtime.OptionError, match="floating"):
        dwt2d(np.zeros((4, 4), int))
    with pytest.raises(runtime.OptionError, match="floating"):
        idwt2d(*[np.zeros((4, 4), int)] * 4)
    band = np.zeros((2, 2))
    with pytest.raises(runtime.OptionError, match="one shape"):
        idwt2d(band, band, band, np.zeros((2, 3)))

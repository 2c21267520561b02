"""Every kind of input picture, and every kind of bad one."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import runtime
from runtime.preprocessing import MAX_PIXELS, prepare_image, to_rgba

SIZE, FRAMING = 64, 0.7


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def prepared(image, size=SIZE):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", runtime.BackgroundWarning)
        return prepare_image(image, size, FRAMING)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def test_a_picture_of_the_right_size_goes_through_untouched(rgb, tmp_path):
    expected = rgb.transpose(2, 0, 1) / 127.5 - 1
    path = tmp_path / "picture.png"
    Image.fromarray(rgb).save(path)
    for image in (
        rgb,
        Image.fromarray(rgb),
        path,
        str(path),
        path.read_bytes(),
        rgb / 255,
        rgb.astype(np.uint16) * 257,
    ):
        result = prepared(image)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_an_opaque_picture_is_taken_with_a_warning(rgb):
    with pytest.warns(runtime.BackgroundWarning, match="background was not removed"):
        prepare_image(rgb, SIZE, FRAMING)


def test_an_oblong_picture_is_padded_with_white_to_a_square(rgb):
    result = prepared(rgb[:32])
    np.testing.assert_array_equal(result[:, :16], 1)
    np.testing.assert_array_equal(result[:, 48:], 1)
    np.testing.assert_allclose(result[:, 16:48], rgb[:32].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_every_pillow_mode_is_understood(mode):
    grey = Image.fromarray(np.full((SIZE, SIZE), 128, np.uint8))
    picture = (
        grey.convert("RGB").convert(mode)
        if mode not in ("I", "F", "PA")
        else grey.convert("LA" if mode == "PA" else "L")
    )
    if mode == "PA":
        picture = picture.convert("PA")
    elif mode == "I":
        picture = Image.fromarray(np.full((SIZE, SIZE), 128 * 257, np.int32))
    elif mode == "F":
        picture = Image.fromarray(np.full((SIZE, SIZE), 128 / 255, np.float32))
    if mode == "1":
        picture = grey.point(lambda v: 255 * (v > 100)).convert("1")
    np.testing.assert_allclose(prepared(picture).mean(), 1 if mode == "1" else 2 * 128 / 255 - 1, atol=0.02)


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    for image in (ramp, encoded(Image.fromarray(ramp))):
        np.testing.assert_allclose(prepared(image)[0], ramp / 32767.5 - 1, atol=1e-5)


def test_palette_transparency_counts_as_a_mask():
    picture = Image.new("P", (SIZE, SIZE), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(1, (20, 20, 40, 40))
    result = prepared(encoded(picture, transparency=0))
    np.testing.assert_allclose(result[:, SIZE // 2, SIZE // 2], [-1, -1, 1], atol=1e-3)
    np.testing.assert_allclose(result[:, 0, 0], 1, atol=1e-3)


def test_exif_rotation_is_applied(rgb):
    picture, exif = Image.fromarray(rgb), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise when shown
    turned = prepared(encoded(picture, exif=exif))
    np.testing.assert_allclose(turned, prepared(np.ascontiguousarray(np.rot90(rgb, -1))), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.integers(0, 60), st.integers(20, 40), st.integers(20, 40))
def test_a_masked_object_is_centred_and_scaled_to_the_framing(left, top, width, height):
    image = np.zeros((100, 140, 4), np.uint8)
    image[top : top + height, left : left + width] = (200, 30, 60, 255)
    result = prepared(image)
    drawn = (result < 0.9).any(0)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    longest, scale = max(width, height), FRAMING * SIZE / max(width, height)
    assert abs(rows[0] + rows[-1] + 1 - SIZE) <= 2
    assert abs(columns[0] + columns[-1] + 1 - SIZE) <= 2
    assert longest * scale == pytest.approx(max(len(rows), len(columns)), abs=2)
    np.testing.assert_allclose(result[:, SIZE // 2, SIZE // 2], np.array([200, 30, 60]) / 127.5 - 1, atol=0.02)


def test_colours_under_full_transparency_do_not_bleed():
    image = np.zeros((80, 80, 4), np.uint8)
    image[..., 1] = 255
    image[20:60, 20:60] = (255, 255, 255, 255)
    assert prepared(image).min() > 0.99


def test_half_transparency_shows_white_through():
    image = np.zeros((80, 80, 4), np.uint8)
    image[20:60, 20:60, 3] = 128
    assert prepared(image)[0, SIZE // 2, SIZE // 2] == pytest.approx(1 - 2 * 128 / 255, abs=1e-3)


def bad_files():
    good = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    return {"text.png": b"this is no picture", "cut.jpg": good[: len(good) // 2], "empty.png": b""}


@pytest.mark.parametrize("name", sorted(bad_files()))
def test_broken_files_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(bad_files()[name])
    for image in (path, path.read_bytes()):
        with pytest.raises(runtime.ImageError, match="cannot be read as an image") as caught:
            prepare_image(image, SIZE, FRAMING)
        assert "PNG, JPEG" in caught.value.remedy


def bomb(width, height):
    """A tiny file that claims to be huge; nothing of it may be decoded."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((32, 32, 3), np.nan, np.float32), "NaN"),
        (np.full((32, 32, 3), 2.0), r"\[0, 1\]"),
        (np.full((32, 32, 3), -1.0), r"\[0, 1\]"),
        (np.zeros((32, 32, 3), np.int64), "int64"),
        (np.zeros((3, 32, 32), np.uint8), "channels come last"),
        (np.zeros((32, 32, 5), np.uint8), "channels come last"),
        (np.zeros((2, 32, 32, 3), np.uint8), "channels come last"),
        (np.zeros((0, 32, 3), np.uint8), "channels come last"),
        (np.zeros((1, 1, 3), np.uint8), "1x1"),
        (np.zeros((64, 64, 4), np.uint8), "fully transparent"),
        (np.pad(np.full((2, 2, 4), 255, np.uint8), ((30, 30), (30, 30), (0, 0))), "only 2x2"),
        (bomb(10_000, 10_000), "too large"),
        (bomb(50_000, 50_000), "too large"),
        (Image.new("1", (MAX_PIXELS // 4000 + 1, 4000)), "too large"),
        (np.zeros((16, 4_000_000, 3), np.uint8), "32 times"),
        (np.zeros((100, 100, 3), np.complex64), "complex64"),
        ("nowhere.png", "no image file"),
        ("x" * 5000, "no image file"),
        ("a\0b", "no image file"),
        (".", "is a folder"),
        (3.5, "float is no image"),
        (None, "NoneType is no image"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_refused(image, reason):
    with pytest.raises(runtime.ImageError, match=reason) as caught:
        prepare_image(image, SIZE, FRAMING)
    assert caught.value.remedy


def test_an_oblong_picture_costs_no_more_memory_than_its_pixels():
    import tracemalloc

    picture = np.zeros((128, 4096, 4), np.uint8)
    picture[:, :64] = 255
    tracemalloc.start()
    prepared(picture)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 4 * picture.size


def test_a_large_photograph_is_shrunk_before_it_is_float():
    import tracemalloc

    photo = Image.linear_gradient("L").resize((6000, 4000)).convert("RGB")
    tracemalloc.start()
    result = prepared(photo)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6
    small = prepared(Image.linear_gradient("L").resize((600, 400)).convert("RGB"))
    np.testing.assert_allclose(result, small, atol=0.06)


def test_any_byte_order_is_understood(rgb):
    expected = prepared(rgb)
    for array in ((rgb.astype(np.uint16) * 257).astype(">u2"), (rgb / 255).astype(">f4"), (rgb / 255).astype("<f8")):
        np.testing.assert_allclose(prepared(array), expected, atol=1e-6)


def test_a_few_transparent_pixels_are_no_mask(rgb):
    rgba = np.dstack([rgb, np.full((SIZE, SIZE), 255, np.uint8)])
    rgba[0, 0, 3] = 0
    with pytest.warns(runtime.BackgroundWarning):
        result = prepare_image(rgba, SIZE, FRAMING)
    np.testing.assert_allclose(result[:, 1:, 1:], prepared(rgb)[:, 1:, 1:], atol=1e-6)


def test_sixteen_bit_grey_keeps_its_transparent_value():
    grey = np.full((80, 80), 1000, np.uint16)
    grey[20:60, 20:60] = 40000
    result = prepared(encoded(Image.fromarray(grey), transparency=1000))
    assert result[0, SIZE // 2, SIZE // 2] == pytest.approx(40000 / 32767.5 - 1, abs=1e-3)
    assert result[0, 0, 0] == pytest.approx(1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_array_that_is_given_stays_what_it_was(dtype, channels):
    given = np.random.default_rng(0).uniform(0, 1, (40, 40, channels)) * (255 if dtype == np.uint8 else 1)
    given = given.astype(dtype)
    before = given.copy()
    to_rgba(given)[:] = 0
    prepared(given)
    np.testing.assert_array_equal(given, before)


def test_grey_arrays_gain_channels():
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    for image in (grey, grey[..., None], np.stack([grey, np.full_like(grey, 255)], -1)):
        rgba = to_rgba(image)
        assert rgba.shape == (4, 20, 30)
        np.testing.assert_allclose(rgba[1], grey / 255, atol=1e-6)
        np.testing.assert_array_equal(rgba[3], 1)

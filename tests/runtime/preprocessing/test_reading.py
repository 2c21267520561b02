"""Kinds of image files that people have, where they come from, and what stands beside their pixels."""

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

import runtime
from runtime.preprocessing import prepare, to_rgba

SIZE, RATIO = 64, 0.7


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def with_chunks(png, *chunks):
    """A PNG with chunks after its header; a CRC of None is a wrong one."""
    made = b""
    for kind, data, right in chunks:
        crc = zlib.crc32(kind + data) ^ (0 if right else 1)
        made += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
    return png[:33] + made + png[33:]


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"tEXt", b"Comment\0hello", False)],
        [(b"zTXt", b"Raw\0\0" + zlib.compress(b"a" * 3_000_000), True)],
        [(b"zTXt", b"Raw\0\0" + zlib.compress(bytes(900_000)), True)] * 90,
        [(b"iTXt", b"\xff\xfe", True)],
        [(b"eXIf", b"Exif, but broken", True)],
        [(b"eXIf", b"II*\0\xff\xff\xff\x7f", True)],
        [(b"iCCP", b"x\0\0not compressed", True)],
        [(b"tIME", b"\0", True)],
    ],
    ids=["wrong CRC", "text", "much text", "bad text", "no Exif", "endless Exif", "broken profile", "short time"],
)
def test_what_stands_beside_the_pixels_does_not_stop_them(rgb, chunks):
    expected = to_rgba(rgb)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(to_rgba(with_chunks(encoded(Image.fromarray(rgb)), *chunks)), expected, atol=1e-6)


def test_damaged_pixels_are_still_an_error(rgb):
    png = encoded(Image.fromarray(rgb))
    with pytest.raises(runtime.ImageError, match="damaged or cut off"):
        to_rgba(png[: len(png) // 2])


def display_p3():
    """A matrix profile with Display P3's primaries and sRGB's curve, as ICC version 2."""

    def s15(values):
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    def xyz(*values):
        return b"XYZ \0\0\0\0" + s15(values)

    curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + s15([2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
    text = b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + bytes(90)
    tags = {
        b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.2412, -0.00105), b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.1571, 0.06657, 0.78407), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += struct.pack(">4sII", name, offset + len(data), len(value))
        data += value
    size = offset + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + s15([0.9642, 1.0, 0.8249])
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


@pytest.mark.parametrize("alpha", [False, True])
def test_a_display_p3_photograph_comes_out_in_srgb(alpha):
    profile, picture = display_p3(), Image.new("RGB", (SIZE, SIZE), (200, 60, 40))
    if alpha:
        picture.putalpha(Image.linear_gradient("L").resize((SIZE, SIZE)))
    found = to_rgba(encoded(picture, icc_profile=profile))
    # By linear algebra: P3's primaries to D50, and D50 to sRGB.
    to_xyz = np.array([[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
    to_srgb = np.linalg.inv([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]])
    signal = np.array([200, 60, 40]) / 255
    linear = to_srgb @ to_xyz @ (((signal + 0.055) / 1.055) ** 2.4)
    wanted = np.clip(1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055, 0, 1)
    np.testing.assert_allclose(found[:3, 5, 5], wanted, atol=0.02)
    assert np.abs(wanted - signal).max() > 0.04
    if alpha:
        np.testing.assert_allclose(found[3], np.asarray(picture.getchannel("A")) / 255, atol=1e-6)


def test_cmyk_with_a_profile_and_one_with_a_strangers_profile_are_read():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cmyk = Image.new("RGB", (SIZE, SIZE), (200, 60, 40)).convert("CMYK")
    plain = to_rgba(encoded(cmyk, "TIFF"))
    np.testing.assert_array_equal(to_rgba(encoded(cmyk, "TIFF", icc_profile=srgb)), plain)
    np.testing.assert_array_equal(to_rgba(encoded(cmyk, "TIFF", icc_profile=b"broken")), plain)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
        (b"\0\0\0\x18ftypmif1" + bytes(99), "HEIF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL"),
        (b"\xff\x0a" + bytes(99), "JPEG XL"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"></svg>', "SVG"),
        (b"<svg></svg>", "SVG"),
        (b"\n <!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"8BPS" + bytes(99), "Photoshop"),
        (b"\x76\x2f\x31\x01" + bytes(99), "OpenEXR"),
        (b"PK\x03\x04" + bytes(99), "ZIP"),
        (b"glTF" + bytes(99), "mesh"),
        (b'{"error": "not found"}', "JSON"),
        (b"", "empty"),
        (b"just some text", "no known format"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_it_is_instead_is_said(data, name, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with pytest.raises(runtime.ImageError, match=name) as caught:
        to_rgba(path)
    assert caught.value.remedy


def test_avif_is_read_where_pillow_reads_it(rgb):
    try:
        data = encoded(Image.fromarray(rgb), "AVIF", quality=100)
    except (KeyError, OSError):
        pytest.skip("this Pillow writes no AVIF")
    assert np.abs(to_rgba(data)[:3].mean((1, 2)) - rgb.mean((0, 1)) / 255).max() < 0.02


def test_images_come_from_pipes_fifos_and_file_objects(rgb, tmp_path, monkeypatch):
    data, expected = encoded(Image.fromarray(rgb)), to_rgba(rgb)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    np.testing.assert_array_equal(to_rgba(fifo), expected)
    writer.join()
    reading, writing = os.pipe()
    threading.Thread(target=lambda: (os.write(writing, data), os.close(writing))).start()
    np.testing.assert_array_equal(to_rgba(f"/dev/fd/{reading}"), expected)
    os.close(reading)
    np.testing.assert_array_equal(to_rgba(io.BytesIO(data)), expected)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    np.testing.assert_array_equal(to_rgba("-"), expected)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://example.org/cat.jpg", "is a URL, and nothing is downloaded"),
        (Path("https://example.org/cat.jpg"), "^https://example.org/cat.jpg is a URL"),
        ("s3://bucket/cat.jpg", "is a URL"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("{folder}", "is a folder"),
        ("{folder}/nothing.png", "no image file at"),
        (io.StringIO("text"), "gives text, not bytes"),
        (io.BytesIO(b""), "it is empty"),
    ],
)
def test_where_nothing_can_be_read_the_reason_is_said(source, said, tmp_path):
    with pytest.raises(runtime.ImageError, match=said):
        to_rgba(source.format(folder=tmp_path) if isinstance(source, str) else source)


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(runtime.ImageError, match="Permission denied"):
        to_rgba(path)


@pytest.mark.parametrize("overshoot", [1e-7, 0.05, 0.15])
def test_rounding_and_overshoot_of_resampling_are_clipped(rgb, overshoot):
    floats = rgb / 255
    floats[0, 0], floats[1, 1] = 1 + overshoot, -overshoot
    found = to_rgba(floats)
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (lambda x: x * 255, "looks like 0 to 255"),
        (lambda x: x * 2 - 1, "looks like -1 to 1"),
        (lambda x: (x - 0.45) / 0.225, "Scale it"),
        (lambda x: x * 1.3, "from 0 to 1.3"),
    ],
)
def test_other_scales_are_refused_in_digits_that_say_why(scale, said):
    floats = np.random.default_rng(0).uniform(size=(40, 40, 3))
    floats[0, 0], floats[0, 1] = 0, 1
    with pytest.raises(runtime.ImageError, match=said):
        to_rgba(scale(floats))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_keeps_its_transparent_value(bits):
    side, highest = 32, 2**bits - 1
    values = np.zeros((side, side), int)
    values[8:24, 8:24] = highest
    # Transparent is the value 0 of the file; then the value `highest`.
    packed = b"".join(
        b"\0" + np.packbits(((row[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()).tobytes()
        for row in values
    )

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for clear in (0, highest):
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0))
        png += chunk(b"tRNS", struct.pack(">H", clear)) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
        np.testing.assert_array_equal(to_rgba(png)[3] < 0.5, values == clear)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_colours_are_divided_again(mode):
    straight = Image.new(
        "LA" if mode == "La" else "RGBA", (SIZE, SIZE), (200, 100) if mode == "La" else (200, 100, 50, 100)
    )
    found = to_rgba(straight.convert(mode))
    np.testing.assert_allclose(found[0], 200 / 255, atol=0.02)
    np.testing.assert_allclose(found[3], 100 / 255, atol=0.01)


def tiff(samples, bits, kind):
    """A TIFF of one strip with these samples; 3 is floating, 1 unsigned."""
    side = 16
    data = np.zeros((side, side, samples), {(32, 3): "<f4", (32, 1): "<u4"}[bits, kind]).tobytes()
    entries = [
        (256, 3, 1, side), (257, 3, 1, side), (258, 3, samples, 0), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 0),
        (277, 3, 1, samples), (278, 3, 1, side), (279, 4, 1, len(data)), (339, 3, samples, 0),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(entries) + 4
    lists = struct.pack(f"<{samples}H", *[bits] * samples) + struct.pack(f"<{samples}H", *[kind] * samples)
    at = {258: start, 339: start + 2 * samples, 273: start + len(lists)}
    table = b"".join(
        struct.pack("<HHII", tag, type_, count, at.get(tag, value)) for tag, type_, count, value in entries
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4) + lists + data


@pytest.mark.parametrize(("kind", "name"), [(3, "32-bit floats"), (1, "32-bit unsigned integers")])
def test_a_tiff_that_pillow_does_not_read_is_named(kind, name):
    with pytest.raises(runtime.ImageError, match=f"TIFF of 3 channels of {name}"):
        to_rgba(tiff(3, 32, kind))


def test_matrices_are_arrays():
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    np.testing.assert_array_equal(to_rgba(np.asmatrix(grey)), to_rgba(grey))


def square(alpha=255):
    image = np.zeros((200, 200, 4), np.uint8)
    image[80:120, 80:120] = (200, 30, 60, alpha)
    return image


def framed(image):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(image, SIZE, RATIO)


@pytest.mark.parametrize("kind", ["speck", "haze", "shadow", "two specks"])
def test_the_frame_is_that_of_the_object(kind):
    image = square()
    if kind.endswith("speck") or kind.endswith("specks"):
        image[3, 5] = (0, 0, 255, 255)
    if kind == "two specks":
        image[190:192, 190:192] = (0, 255, 0, 255)
    if kind == "haze":
        image[..., 3] = np.maximum(image[..., 3], 20)
    if kind == "shadow":
        canvas = Image.new("L", (200, 200))
        ImageDraw.Draw(canvas).ellipse((60, 100, 190, 150), fill=90)
        image[..., 3] = np.maximum(image[..., 3], np.asarray(canvas))
    found, wanted = framed(image), framed(square())
    # A little of a shadow stays beside the object's edge.
    assert np.abs(found.pixels - wanted.pixels).mean() < (0.04 if kind == "shadow" else 0.02)
    assert any(category is runtime.FramingWarning for _, category in found.notes)
    assert not wanted.notes


@pytest.mark.parametrize("alpha", [60, 128, 255])
def test_an_object_that_is_all_faint_is_still_framed(alpha):
    solid = framed(square(alpha)).alpha > 0.4 * alpha / 255
    rows = np.flatnonzero(solid.any(1))
    assert len(rows) == pytest.approx(RATIO * SIZE, abs=2)


def test_parts_that_hang_together_by_little_stay(rgb):
    image = square()
    image[60:80, 99:101] = (9, 9, 9, 255)  # a stalk
    image[40:60, 90:110] = (9, 9, 9, 255)
    found = framed(image)
    assert not found.notes
    assert (found.alpha > 0.5).any(1).sum() == pytest.approx(RATIO * SIZE, abs=2)


def test_errors_and_warnings_of_a_list_name_the_item_at_the_callers_line(tiny_runtime, rgb):
    with pytest.raises(runtime.ImageError, match=r"Image 2 of 3: There is no image file"):
        tiny_runtime.render([rgb, "nowhere.png", rgb], image_size=8)
    with pytest.warns(runtime.BackgroundWarning) as caught:
        tiny_runtime.render([rgb, rgb], image_size=8)
    assert [str(w.message)[:13] for w in caught] == ["Image 1 of 2:", "Image 2 of 2:"]
    assert {w.filename for w in caught} == {__file__}
    with pytest.warns(runtime.BackgroundWarning) as caught:
        tiny_runtime.reconstruct(rgb)
    assert caught[0].filename == __file__


def test_deep_grey_is_shrunk_before_it_becomes_four_channels():
    tall = np.tile(np.linspace(0, 65535, 4100).astype(np.uint16)[:, None], (1, 300))
    rgba = to_rgba(Image.fromarray(tall))
    assert rgba.shape == (4, 1367, 100)
    np.testing.assert_allclose(rgba[0, :, 50], np.linspace(0, 1, 1367), atol=2e-3)
    assert rgba[3].min() == 1

"""What a file is, by its beginning: for messages about files that are not what they should be."""

from __future__ import annotations

_BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC",
    b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF", b"qt  ": "QuickTime video",
    b"crx ": "Canon raw (CR3)",
}  # fmt: skip
# Beginnings of files that people give by mistake, or in good faith.
_MAGIC = (
    (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"%PDF", "PDF"), (b"%!PS", "PostScript"), (b"8BPS", "Photoshop (PSD)"),
    (b"\x76\x2f\x31\x01", "OpenEXR"), (b"#?RADIANCE", "Radiance HDR"), (b"#?RGBE", "Radiance HDR"), (b"DDS ", "DDS"),
    (b"gimp xcf", "GIMP (XCF)"), (b"FUJIFILMCCD-RAW", "Fujifilm raw"), (b"IIRO", "Olympus raw"),
    (b"IIU\0", "Panasonic raw"),
    (b"glTF", "binary glTF, a mesh"), (b"PK\x03\x04", "ZIP archive"), (b"\x1f\x8b", "gzip archive"),
    (b"7z\xbc\xaf", "7-Zip archive"), (b"Rar!", "RAR archive"), (b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    (b"\x93NUMPY", "NumPy array; load it with numpy.load"), (b"\0\0\1\0", "Windows icon (ICO)"),
    (b"version https://git-lfs", "Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"{\\rtf", "rich text"), (b"\x89HDF", "HDF5"), (b"SIMPLE  =", "FITS"), (b"qoif", "QOI"),
    (b"\x80\x04\x95", "Python pickle"),
)  # fmt: skip


def format_name(data: bytes) -> str | None:
    """Names the format that a file's beginning shows, None where it shows none that is known here."""
    head = data[:512]
    if head[4:8] == b"ftyp":
        return _BRANDS.get(
            head[8:12], "MPEG-4 video" if head[8:11] in (b"iso", b"mp4", b"M4V", b"avc") else "ISO media"
        )
    for beginning, name in _MAGIC:
        if head.startswith(beginning):
            return name
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "web page (HTML), perhaps the page around an image"
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "SVG"
    if text.startswith(b"<?xml"):
        return "XML"
    if text.startswith((b"{", b"[")) and head.isascii():
        return "JSON"
    return None

"""File signatures: image format, WebP canvas size, scans and end of a JPEG stream, truncation."""

from __future__ import annotations

import re

__all__ = ["jpeg_scans", "looks_cut", "recognise", "webp_size"]

# A marker; 00 and D0 to D7 belong to the coded data, a further FF fills up.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _TEM, _EOI, _SOS = 0xD8, 0x01, 0xD9, 0xDA

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"SIMPLE  =", "FITS"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"DDS ", "DDS"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "XCF"),
    *((b"P%d%c" % (kind, space), "Netpbm") for kind in range(1, 8) for space in b" \n\r\t"),
)


def recognise(data: bytes) -> str | None:
    """Return the image format that the first bytes indicate: JPEG, PNG, WEBP, another one, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF or another ISO media format"
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (
        text.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text
    ):
        return "SVG"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the canvas (width, height) of a WebP header (RFC 9649, sections 2.5 to 2.7), or None."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def jpeg_scans(data: bytes) -> tuple[int, bool]:
    """Count the scans of the first JPEG stream of a file, by its markers (ITU-T T.81, annex B).

    What follows the end of the stream is not looked at: phones append a film (motion photos), cameras further
    pictures (MPO).

    Returns:
        Number of scans, and whether the stream has its end marker.
    """
    scans, at = 0, 0
    while (marker := _JPEG_MARKER.search(data, at)) is not None:
        code, at = data[marker.end() - 1], marker.end()
        if code == _EOI:
            return scans, True
        if code in (_SOI, _TEM):
            continue
        scans += code == _SOS
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans, False


def looks_cut(data: bytes, kind: str) -> bool:
    """Return whether a JPEG, PNG or WEBP file seems truncated."""
    if kind == "JPEG":
        return not jpeg_scans(data)[1]
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    return len(data) < 30 or int.from_bytes(data[4:8], "little") + 8 > len(data)

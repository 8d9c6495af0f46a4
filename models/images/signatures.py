"""File signatures: image format, WebP canvas size, the frame and scans of a JPEG stream, truncation."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["JpegStream", "looks_cut", "read_jpeg", "recognise", "webp_size"]

# A marker; 00 and D0 to D7 belong to the coded data, a further FF fills up.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _TEM, _EOI, _SOS, _DNL = 0xD8, 0x01, 0xD9, 0xDA, 0xDC
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1)  # baseline and extended, with Huffman coding

# Brands of ISO base media files (ISO/IEC 23008-12, AV1 Image File Format).
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_MAX_BRANDS = 64

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
    """Return the format that the first bytes indicate: JPEG, PNG, WEBP, HEIC, AVIF, another one, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _recognise_brand(data)
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


@dataclass(frozen=True, slots=True)
class JpegStream:
    """The first JPEG stream of a file.

    Attributes:
        scans: Number of scans; 1 of a stream of one pass.
        complete: Whether it has its end marker.
        one_pass: It is sequential and its first scan has all components, so that a decoder holds some rows of
            it only. Of other files it holds all coefficients, at whatever scale it decodes.
        trailer: Where something else than the end marker follows the scan of a stream of one pass, or None.
    """

    scans: int
    complete: bool
    one_pass: bool
    trailer: int | None = None


def read_jpeg(data: bytes) -> JpegStream:
    """Read the first JPEG stream of a file by its markers (ITU-T T.81, annex B).

    What follows the end of the stream is not looked at: phones append a film (motion photos), cameras further
    pictures (MPO).
    """
    scans, at = 0, 0
    frame, components, one_pass = -1, 0, False
    while (marker := _JPEG_MARKER.search(data, at)) is not None:
        code, at = data[marker.end() - 1], marker.end()
        if code == _EOI:
            break
        if one_pass and code != _DNL:
            return JpegStream(scans, complete=False, one_pass=True, trailer=marker.start())
        if code in (_SOI, _TEM):
            continue
        if code in _SOF and frame < 0:
            frame, components = code, data[at + 7] if at + 7 < len(data) else 0
        if code == _SOS:
            scans += 1
            in_scan = data[at + 2] if at + 2 < len(data) else 0
            one_pass = scans == 1 and frame in _SEQUENTIAL and 0 < components == in_scan
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return JpegStream(scans, marker is not None, one_pass)


def looks_cut(data: bytes, kind: str) -> bool:
    """Return whether a file of a kind that `recognise` names seems truncated."""
    if kind == "JPEG":
        return not read_jpeg(data).complete
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    if kind in ("HEIC", "AVIF"):
        return _last_box_is_cut(data)
    return len(data) < 30 or int.from_bytes(data[4:8], "little") + 8 > len(data)


def _recognise_brand(data: bytes) -> str:
    """Return what an ISO base media file is by its brands; the major one may be a general one, as `mif1`."""
    end = min(len(data), int.from_bytes(data[:4], "big"), 16 + 4 * _MAX_BRANDS)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    for brand in brands:
        if brand in _AVIF_BRANDS:
            return "AVIF"
        if brand in _HEIC_BRANDS:
            return "HEIC"
    return "a film or another ISO media file"


def _last_box_is_cut(data: bytes) -> bool:
    """Return whether the boxes of an ISO base media file reach beyond its end (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 0:  # up to the end of the file
            return False
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return False  # not a box: damaged rather than cut
        at += size
    return at > len(data)

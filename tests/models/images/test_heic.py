"""HEIC and AVIF: pixels, orientation, EXIF and limits as of JPEG; the refusal without the extra."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.images import ImageRejected, decode_image
from models.images import heic as heic_module
from models.images.photo import load_pixels
from models.images.signatures import recognise
from tests.support.encoded_images import (
    difference,
    encoded,
    encoded_heic,
    needs_heic,
    photo_exif,
    reason_of,
    scene,
)

KINDS = pytest.mark.parametrize("kind", [pytest.param("HEIC", marks=needs_heic), "AVIF"])
FILE_TYPES = [
    (b"heic", b"mif1heic", "HEIC"),
    (b"mif1", b"mif1heic", "HEIC"),
    (b"heix", b"mif1", "HEIC"),
    (b"msf1", b"hevc", "HEIC"),
    (b"avif", b"mif1miaf", "AVIF"),
    (b"mif1", b"miafavif", "AVIF"),
    (b"mp42", b"isommp42", "a film or another ISO media file"),
    (b"qt  ", b"qt  ", "a film or another ISO media file"),
]


def written(kind: str, image: Image.Image, *, orientation: int = 1, **options: Any) -> bytes:
    """Encode an image with the EXIF of a phone and an orientation."""
    exif = photo_exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    options |= {"exif": exif.tobytes()}
    return encoded_heic(image, **options) if kind == "HEIC" else encoded(image, kind, quality=90, **options)


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Change the size that the header of a file states (the property `ispe`)."""
    changed, at = bytearray(data), -1
    while (at := data.find(b"ispe", at + 1)) >= 0:
        changed[at + 8 : at + 16] = struct.pack(">II", width, height)
    return bytes(changed)


@pytest.mark.parametrize(("major", "brands", "kind"), FILE_TYPES)
def test_the_brands_tell_the_kind(major: bytes, brands: bytes, kind: str) -> None:
    data = struct.pack(">I", 16 + len(brands)) + b"ftyp" + major + bytes(4) + brands
    assert recognise(data + bytes(20)) == kind
    assert recognise(data[:11]) is not None  # cut inside of the brands


@KINDS
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pixels_are_upright_and_exif_is_read(kind: str, orientation: int) -> None:
    decoded = decode_image(written(kind, scene(), orientation=orientation))
    turned = {1: 0, 3: 180, 6: 270, 8: 90}[orientation]
    expected = scene().rotate(turned, expand=True)
    assert (decoded.width, decoded.height) == expected.size
    assert difference(decoded, expected) < 5
    assert decoded.lat == pytest.approx(-33.86)
    assert decoded.heading_deg == 271.5
    assert decoded.captured_at is not None
    assert not decoded.animated


@KINDS
def test_limits_are_those_of_jpeg(kind: str) -> None:
    data = written(kind, scene(200, 150))
    assert decode_image(data, max_pixels=200 * 150).width == 200
    assert reason_of(data, max_pixels=200 * 150 - 1) == "too_many_pixels"
    assert reason_of(data, max_pixels=200 * 150 - 1, min_side_px=64) == "too_many_pixels"
    assert reason_of(data, max_bytes=len(data) - 1) == "too_large"
    assert reason_of(written(kind, scene(816, 16))) == "bad_aspect"


@KINDS
def test_cut_files_are_truncated(kind: str) -> None:
    data = written(kind, scene(200, 150))
    for share in range(1, 50):
        part = data[: max(12, len(data) * share // 52)]
        assert reason_of(part) == "truncated", f"cut at {len(part)} of {len(data)}"


@KINDS
def test_a_header_that_states_another_size_is_rejected_or_harmless(kind: str) -> None:
    data = written(kind, scene(200, 150))
    for width, height in ((64, 48), (20_000, 20_000), (0, 0), (200, 48)):
        pixels = 0
        with contextlib.suppress(ImageRejected):
            pixels = decode_image(with_size(data, width, height), max_pixels=200 * 150).pixels.size // 3
        assert pixels <= 200 * 150


@KINDS
def test_several_pictures_in_one_file(kind: str) -> None:
    first, other = scene(), scene().rotate(180)
    if kind == "AVIF":
        data = encoded(first, kind, save_all=True, append_images=[other], duration=100, quality=90)
    else:
        import pillow_heif

        file = io.BytesIO()
        heif = pillow_heif.from_pillow(first)
        heif.add_from_pillow(other)
        heif.save(file, quality=90, primary_index=0)
        data = file.getvalue()
    decoded = decode_image(data)
    assert difference(decoded, first) < 5
    assert decoded.animated == (kind == "AVIF")


@KINDS
def test_alpha_is_composited(kind: str) -> None:
    clear = scene().convert("RGBA")
    clear.putalpha(0)
    data = encoded_heic(clear) if kind == "HEIC" else encoded(clear, kind)
    assert np.abs(decode_image(data).pixels.astype(int) - 128).max() < 6


@KINDS
def test_the_whole_of_pillow_is_left_as_it_is(kind: str, tmp_path: Any) -> None:
    (tmp_path / "photo").write_bytes(written(kind, scene()))
    before = dict(Image.OPEN)
    assert load_pixels(tmp_path / "photo").shape == (48, 64, 3)
    assert before.keys() == Image.OPEN.keys()


def test_without_the_extra_the_refusal_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    monkeypatch.setattr(heic_module, "_plugin", heic_module._plugin.__wrapped__)
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)
    with pytest.raises(ImageRejected, match=r'pip install "placeray\[heic\]"') as refused:
        decode_image(data)
    assert refused.value.reason == "format_not_allowed"


def test_without_avif_in_pillow_the_photo_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    with pytest.raises(ImageRejected, match="AVIF") as refused:
        decode_image(encoded(scene(), "AVIF"))
    assert refused.value.reason == "format_not_allowed"

"""The size that a header declares, against what Pillow says of the same file."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from PIL import Image

from models.images.declared_size import declared_pixels
from tests.support.encoded_images import encoded_heic, needs_heic


def encoded(kind: str, width: int = 123, height: int = 45, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG"),
        encoded("JPEG", progressive=True),
        encoded("JPEG", comment=b"\xff\xc0" * 5000, exif=b"Exif\0\0" + b"\xff\xc0" * 9000),
        encoded("PNG"),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        encoded("WEBP", exif=b"Exif\0\0MM"),
        encoded("AVIF", speed=10),
    ],
    ids=[
        *("jpeg", "progressive", "jpeg with long segments", "png", "webp", "lossless webp", "extended webp"),
        "avif",
    ],
)
def test_declared_pixels_are_those_of_the_photo(data: bytes) -> None:
    assert declared_pixels(data, unknown=-1) == 123 * 45
    cut = declared_pixels(data[:100], unknown=-1)
    assert cut in (-1, 123 * 45)


@needs_heic
def test_declared_pixels_of_a_heic_are_those_of_its_largest_picture() -> None:
    data = encoded_heic(Image.effect_noise((192, 128), 50).convert("RGB"))
    assert declared_pixels(data, unknown=-1) == 192 * 128
    assert declared_pixels(data[:100], unknown=-1) == -1


def test_a_webp_of_few_bytes_declares_what_decoding_would_take() -> None:
    few = b"RIFF\x2a\0\0\0WEBPVP8L\x1e\0\0\0\x2f" + (6319 | 6319 << 14).to_bytes(4, "little") + bytes(25)
    assert declared_pixels(few, unknown=-1) == 6320**2


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff\xd8\xff", b"GIF89a" + bytes(100), b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF" + bytes(40)),
        b"\xff\xd8" + b"\xff" * 50_000_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 10_000_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 10_000_000,
    ],
    ids=["empty", "start", "gif", "cut webp", "riff", "fill", "segments", "empty segments"],
)
def test_what_cannot_be_read_ahead_is_unknown_and_costs_nothing(data: bytes) -> None:
    started = time.perf_counter()
    assert declared_pixels(data, unknown=7) == 7
    assert time.perf_counter() - started < 0.5

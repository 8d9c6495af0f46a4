"""Hostile files: each decodes or is rejected, within bounds on time and memory."""

from __future__ import annotations

import subprocess
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.images import ImageRejected, decode_image
from tests.support.encoded_images import (
    HEIC,
    chunk,
    encoded,
    encoded_heic,
    photo_exif,
    png,
    reason_of,
    scene,
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is not an image", "not_an_image"),
        (b"\0" * 500, "not_an_image"),
        (b"<html><svg></svg></html>", "not_an_image"),
        (b"GIF89a" + bytes(40), "format_not_allowed"),
        (b"II*\0" + bytes(40), "format_not_allowed"),
        (b"MM\0*" + bytes(40), "format_not_allowed"),
        (b"BM" + bytes(60), "format_not_allowed"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format_not_allowed"),
        (b"%PDF-1.7\n", "format_not_allowed"),
        (b"SIMPLE  =                    T", "format_not_allowed"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42mp41", "format_not_allowed"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", "format_not_allowed"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "truncated"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "corrupt"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format_not_allowed"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>", "format_not_allowed"),
        (b"P6\n9 9\n255\n", "format_not_allowed"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not_an_image"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xd9", "corrupt"),
        (b"RIFF\xff\0\0\0WEBPVP8 ", "truncated"),
    ],
)
def test_decode_other_bytes_rejected_without_subprocess(
    data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: Any, **__: Any) -> None:
        raise AssertionError("a subprocess was started")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    assert reason_of(data) == reason


def test_decode_bombs_rejected_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("pixels were decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("pixels were decoded"))
    assert reason_of(png(13000, 13000, 8, 0, bytes(1000))) == "too_many_pixels"
    assert reason_of(png(20000, 20000, 8, 0, bytes(1000))) == "too_many_pixels"
    assert reason_of(png(1, 60000, 8, 0, bytes(1000))) == "bad_aspect"
    canvas = b"\0\0\0\0" + (16383).to_bytes(3, "little") * 2
    webp = b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0" + canvas + bytes(20)
    assert reason_of(webp) == "too_many_pixels"


def test_decode_millions_of_parts_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.images.pillow_guard._MAX_READS", 2000)
    many = png(64, 48, 8, 0, bytes(65 * 48), extra=chunk(b"prVt", b"") * 5000)
    assert reason_of(many) == "corrupt"
    jpeg = encoded(scene(), "JPEG")
    assert reason_of(jpeg[:2] + b"\xff\xe5\0\x02" * 5000 + jpeg[2:]) == "corrupt"
    assert reason_of(jpeg[:20] + b"\0" * 5000 + jpeg[20:]) == "corrupt"


def test_decode_hundreds_of_jpeg_scans_rejected() -> None:
    data = encoded(scene(), "JPEG", progressive=True)
    assert decode_image(data).width == 64
    last = data.rindex(b"\xff\xda")
    assert reason_of(data[:-2] + data[last:-2] * 200 + b"\xff\xd9") == "corrupt"


def mutated_files(count: int) -> list[tuple[int, bytes]]:
    """Files with 8 random bytes changed; number i is made with seed i."""
    sources = [
        encoded(scene(), "JPEG", exif=photo_exif()),
        encoded(scene(), "JPEG", progressive=True),
        encoded(scene().convert("CMYK"), "JPEG"),
        encoded(scene(), "PNG", exif=photo_exif()),
        encoded(scene().quantize(16), "PNG", transparency=bytes(range(0, 160, 10))),
        encoded(scene(), "PNG", save_all=True, append_images=[scene().rotate(90)]),
        encoded(scene(), "WEBP", exif=photo_exif()),
        encoded(scene().convert("RGBA"), "WEBP", lossless=True),
        encoded(scene(), "WEBP", save_all=True, append_images=[scene().rotate(90)]),
        encoded(scene(), "AVIF", exif=photo_exif()),
        *([encoded_heic(scene(), exif=photo_exif().tobytes())] if HEIC else []),
    ]
    files = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        data = bytearray(sources[seed % len(sources)])
        reach = len(data) if seed % 2 else min(len(data), 200)  # every other one damages the header
        for position in rng.integers(0, reach, 8):
            data[position] = rng.integers(0, 256)
        files.append((seed, bytes(data)))
    return files


def outcomes_of_mutated(count: int) -> dict[str, int]:
    """Decode mutated files, of which each is a photo or is refused by name, and count both."""
    outcomes = {"decoded": 0, "rejected": 0}
    for seed, data in mutated_files(count):
        started = time.perf_counter()
        try:
            decoded = decode_image(data, max_pixels=4_000_000)
            assert decoded.pixels.shape == (decoded.height, decoded.width, 3), f"seed {seed}"
            outcomes["decoded"] += 1
        except ImageRejected:
            outcomes["rejected"] += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert time.perf_counter() - started < 20, f"seed {seed} hangs"
    return outcomes


def test_decode_mutated_files_succeed_or_are_rejected() -> None:
    outcomes = outcomes_of_mutated(500)
    assert sum(outcomes.values()) == 500
    assert min(outcomes.values()) > 50


@pytest.mark.slow
def test_decode_20000_mutated_files_succeed_or_are_rejected() -> None:
    outcomes = outcomes_of_mutated(20_000)
    assert sum(outcomes.values()) == 20_000
    assert min(outcomes.values()) > 2_000


def test_decode_many_threads_keep_warning_filters() -> None:
    """Filters come back as they were, and no warning of Pillow escapes on the way."""
    before = list(warnings.filters)
    data = [data for _, data in mutated_files(60)]
    barrier = threading.Barrier(4)

    def worker(_: int) -> int:
        barrier.wait()
        rejected = 0
        for item in data:
            try:
                decode_image(item, max_pixels=4_000_000)
            except ImageRejected:
                rejected += 1
        return rejected

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(worker, range(4)))) == 1
    assert list(warnings.filters) == before


def test_pillows_own_limit_is_replaced_by_ours_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode_image(encoded(scene()), max_pixels=64 * 48).width == 64
    assert Image.MAX_IMAGE_PIXELS == 1000

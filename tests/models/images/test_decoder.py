"""The decoder: every mode comes out right, every bad file is refused with its reason."""

from __future__ import annotations

import copy
import io
import struct
import subprocess
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.images import decoder as image_module
from models.images.decoder import BACKGROUND, DecodedImage, ImageRejected, decode_image
from tests.support.photo_sets import photo_set


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """A smooth picture without symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * columns / width, 255 * rows / height
    blue = 127 + 100 * np.sin(columns / 9) * np.cos(rows / 7)
    return Image.fromarray(np.stack((red, green, blue), axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, raw: bytes, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def reason_of(data: bytes, **limits: int) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode_image(data, **limits)
    assert ":" in str(caught.value), "the message names no next step"
    return caught.value.reason


def difference(decoded: DecodedImage, expected: Image.Image | NDArray[np.uint8]) -> float:
    return float(np.abs(decoded.pixels.astype(float) - np.asarray(expected).astype(float)).mean())


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 3),
        ("WEBP", {"quality": 95}, 4),
    ],
)
def test_decode_allowed_formats_return_pixels(kind: str, options: dict[str, Any], tolerance: float) -> None:
    decoded = decode_image(encoded(scene(), kind, **options))
    assert (decoded.width, decoded.height, decoded.pixels.shape) == (64, 48, (48, 64, 3))
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.writeable
    assert difference(decoded, scene()) <= tolerance
    assert not decoded.animated
    assert decoded.lat is decoded.captured_at is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decode_exif_orientation_returns_upright(orientation: int, kind: str) -> None:
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene() if orientation == 1 else scene().transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encoded(stored, kind, exif=exif, quality=95))
    assert (decoded.width, decoded.height) == (64, 48)
    assert difference(decoded, scene()) < 5


def test_decode_grey_modes_scale_to_full_range() -> None:
    grey = scene().convert("L")
    wide = (np.asarray(grey).astype(np.uint16) * 257).astype(np.uint16)
    expected = np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)
    assert difference(decode_image(encoded(grey)), expected) == 0
    assert difference(decode_image(encoded(grey, "JPEG", quality=95)), expected) < 2
    assert difference(decode_image(encoded(Image.fromarray(wide))), expected) == 0
    bits = grey.convert("1")
    assert difference(decode_image(encoded(bits)), np.asarray(bits.convert("RGB"))) == 0


def test_decode_16_bit_rgb_and_alpha_png_scale_to_full_range() -> None:
    pixels = np.asarray(scene())
    wide = (pixels.astype(np.uint16) * 257).astype(">u2")
    opaque = np.concatenate((wide, np.full((48, 64, 1), 65535, ">u2")), axis=2)
    grey_alpha = np.stack((wide[:, :, 0], opaque[:, :, 3]), axis=2)
    for colour, values, expected in (
        (2, wide, pixels),
        (6, opaque, pixels),
        (4, grey_alpha, np.repeat(pixels[:, :, :1], 3, axis=2)),
    ):
        raw = b"".join(b"\0" + row.tobytes() for row in values)
        assert difference(decode_image(png(64, 48, 16, colour, raw)), expected) <= 1, colour


def test_decode_transparency_is_composited_over_background() -> None:
    clear = scene().convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(48, 0)))
    grey_alpha = clear.convert("LA")
    palette = scene().quantize(8)
    for picture, data in (
        (clear, encoded(clear)),
        (clear, encoded(clear, "WEBP", lossless=True)),
        (grey_alpha, encoded(grey_alpha)),
    ):
        decoded = decode_image(data)
        assert (decoded.pixels[:, :32] == BACKGROUND).all()
        assert difference(decoded, np.asarray(picture.convert("RGB"))) > 10
        assert np.array_equal(decoded.pixels[:, 32:], np.asarray(picture.convert("RGB"))[:, 32:])
    index = int(np.asarray(palette)[0, 0])
    decoded = decode_image(encoded(palette, transparency=index))
    hidden = np.asarray(palette) == index
    assert (decoded.pixels[hidden] == BACKGROUND).all()
    assert np.array_equal(decoded.pixels[~hidden], np.asarray(palette.convert("RGB"))[~hidden])
    several = decode_image(encoded(palette, transparency=bytes([0, 255] * 4)))
    assert (several.pixels[np.asarray(palette) % 2 == 0] == BACKGROUND).all()


def test_decode_colour_key_png_is_composited() -> None:
    picture = scene()
    picture.paste((1, 2, 3), (0, 0, 64, 10))
    decoded = decode_image(encoded(picture, transparency=(1, 2, 3)))
    assert (decoded.pixels[:10] == BACKGROUND).all()
    assert np.array_equal(decoded.pixels[10:], np.asarray(picture)[10:])


def test_decode_cmyk_jpeg_returns_its_colours() -> None:
    decoded = decode_image(encoded(scene().convert("CMYK"), "JPEG", quality=95))
    assert difference(decoded, scene()) < 6


def test_decode_adobe_inverted_cmyk_jpeg_is_inverted() -> None:
    data = encoded(scene().convert("CMYK"), "JPEG", quality=95)
    marker = data.index(b"\xff\xee\x00\x0eAdobe")
    plain = data[:marker] + data[marker + 16 :]
    assert difference(decode_image(plain), 255 - np.asarray(scene())) > 40
    assert difference(decode_image(data), scene()) < 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_decode_animation_returns_first_frame_flagged(kind: str) -> None:
    frames = [scene(), Image.new("RGB", (64, 48), "red")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    decoded = decode_image(data)
    assert decoded.animated
    assert difference(decoded, scene()) == 0


def test_decode_phone_jpeg_of_several_pictures_is_no_animation() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    decoded = decode_image(data)
    assert not decoded.animated
    assert difference(decoded, scene()) < 6


def photo_exif(**changes: Any) -> Image.Exif:
    exif = Image.Exif()
    gps = {1: "S", 2: (33.0, 51.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0), 17: 271.5}
    details = {0x9003: "2024:02:29 23:30:00", 0x9011: "+11:00"}
    for key, value in changes.items():
        (gps if key.startswith("gps") else details)[int(key.removeprefix("gps").removeprefix("exif"))] = value
    exif.get_ifd(0x8825).update(gps)
    exif.get_ifd(0x8769).update(details)
    return exif


def test_decode_exif_facts_are_read() -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=photo_exif()))
    assert decoded.lat == pytest.approx(-33.86)
    assert decoded.lon == pytest.approx(151.2)
    assert decoded.heading_deg == pytest.approx(271.5)
    assert decoded.captured_at == datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    assert decoded.captured_at is not None
    assert decoded.captured_at.tzinfo is UTC


def test_decode_gps_time_used_without_time_zone() -> None:
    exif = photo_exif(exif36881="", gps7=(7.0, 8.0, 9.0), gps29="2023:05:06")
    decoded = decode_image(encoded(scene(), "JPEG", exif=exif))
    assert decoded.captured_at == datetime(2023, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"gps2": (91.0, 0.0, 0.0)}, {"lat", "lon"}),
        ({"gps4": (1.0, 2.0)}, {"lat", "lon"}),
        ({"gps1": "Q"}, {"lat", "lon"}),
        ({"gps17": 400.0}, {"heading_deg"}),
        ({"exif36867": "yesterday"}, {"captured_at"}),
        ({"exif36881": "+99:00"}, {"captured_at"}),
        ({"exif36867": "0001:01:01 00:00:00"}, {"captured_at"}),
    ],
)
def test_decode_exif_malformed_fact_ignored_alone(changes: dict[str, Any], missing: set[str]) -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=photo_exif(**changes)))
    facts = {name: getattr(decoded, name) for name in ("lat", "lon", "heading_deg", "captured_at")}
    assert {name for name, value in facts.items() if value is None} == missing


def test_decode_exif_garbage_ignored() -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage"))
    assert decoded.lat is None
    assert decoded.width == 64


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is no image at all", "not_an_image"),
        (b"\0" * 500, "not_an_image"),
        (b"<html><svg></svg></html>", "not_an_image"),
        (b"GIF89a" + bytes(40), "format_not_allowed"),
        (b"II*\0" + bytes(40), "format_not_allowed"),
        (b"MM\0*" + bytes(40), "format_not_allowed"),
        (b"BM" + bytes(60), "format_not_allowed"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format_not_allowed"),
        (b"%PDF-1.7\n", "format_not_allowed"),
        (b"SIMPLE  =                    T", "format_not_allowed"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "format_not_allowed"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "format_not_allowed"),
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


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_decode_cut_file_rejected_as_truncated(kind: str) -> None:
    data = encoded(scene(200, 150), kind)
    for share in range(1, 50):
        part = data[: max(12, len(data) * share // 52)]
        assert reason_of(part) == "truncated", f"{kind} cut at {len(part)} of {len(data)}"


def test_decode_limits_hold_at_and_one_above() -> None:
    data = encoded(scene())
    assert decode_image(data, max_pixels=64 * 48).width == 64
    assert reason_of(data, max_pixels=64 * 48 - 1) == "too_many_pixels"
    assert decode_image(data, max_bytes=len(data)).width == 64
    assert reason_of(data, max_bytes=len(data) - 1) == "too_large"
    assert decode_image(encoded(scene(400, 8))).width == 400
    assert reason_of(encoded(scene(401, 8))) == "bad_aspect"
    assert reason_of(encoded(scene(8, 401))) == "bad_aspect"
    assert reason_of(encoded(scene(20, 7))) == "too_small"


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
    monkeypatch.setattr(image_module, "_MAX_READS", 2000)
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


def test_decode_over_pillows_own_limit_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert decode_image(encoded(scene())).width == 64  # between Pillow's warning and its error
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert reason_of(encoded(scene())) == "too_many_pixels"


def test_rejected_copied_between_processes_keeps_reason() -> None:
    error = copy.copy(ImageRejected("corrupt", "broken: try another"))
    assert (error.reason, str(error)) == ("corrupt", "broken: try another")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("side", "scale"), [(60, 8), (61, 4), (224, 2), (241, 1), (480, 1), (9000, 1)])
def test_decode_scaled_jpeg_keeps_both_sides_long_enough(side: int, scale: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(640, 480), "JPEG", quality=92, exif=exif.tobytes())
    whole, shrunk = decode_image(data), decode_image(data, min_side_px=side)
    upright = (480, 640) if orientation == 1 else (640, 480)
    assert whole.pixels.shape[:2] == upright
    assert shrunk.pixels.shape[:2] == (upright[0] // scale, upright[1] // scale)
    assert (shrunk.width, shrunk.height) == (whole.width, whole.height) == upright[::-1]
    expected = Image.fromarray(whole.pixels).reduce(scale) if scale > 1 else Image.fromarray(whole.pixels)
    assert difference(shrunk, expected) < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_decode_scaled_leaves_other_formats_whole(kind: str) -> None:
    data = encoded(scene(640, 480), kind)
    assert np.array_equal(decode_image(data, min_side_px=64).pixels, decode_image(data).pixels)


def test_decode_real_photos_full_size() -> None:
    for folder in sorted(photo_set("ie_tower").iterdir()):
        for path in sorted(folder.glob("*.jpg"))[:2]:
            decoded = decode_image(path.read_bytes())
            assert (decoded.width, decoded.height) == (1280, 720)
            assert decoded.pixels.std() > 10

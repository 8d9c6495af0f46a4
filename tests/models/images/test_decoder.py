"""The decoder: formats, limits, truncated files, animations and scaled decoding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.images import ImageRejected, decode_image
from models.images.signatures import JpegStream, read_jpeg
from tests.support.encoded_images import difference, encoded, reason_of, scene
from tests.support.real_datasets import photo_set


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


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_decode_animation_returns_first_frame_flagged(kind: str) -> None:
    frames = [scene(), Image.new("RGB", (64, 48), "red")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    decoded = decode_image(data)
    assert decoded.animated
    assert difference(decoded, scene()) == 0


def test_decode_phone_jpeg_of_several_pictures_is_not_an_animation() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    decoded = decode_image(data)
    assert not decoded.animated
    assert difference(decoded, scene()) < 6


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


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    "trailer",
    [
        b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08" * 500,  # a motion photo: a film behind the picture
        b"\xff\xd8\xff\xda\0\x08" * 500,  # further pictures, cut off
        b"\0" * 100_000,
    ],
)
def test_decode_what_follows_a_jpeg_is_not_looked_at(trailer: bytes, progressive: bool) -> None:
    data = encoded(scene(), "JPEG", quality=95, progressive=progressive)
    plain, followed = decode_image(data), decode_image(data + trailer)
    assert (followed.pixels == plain.pixels).all()
    assert not followed.animated


def test_decode_panorama_without_an_end_marker_before_its_trailer() -> None:
    data = encoded(scene(640, 480), "JPEG", quality=95)
    plain = decode_image(data)
    for trailer in (
        b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08" * 500,
        np.random.default_rng(0).bytes(4 << 20),
        data[data.rindex(b"\xff\xda") :] * 200,  # further scans of a stream of one pass add nothing
    ):
        assert (decode_image(data[:-2] + trailer).pixels == plain.pixels).all()


def test_decode_first_of_many_pictures_in_an_mpo() -> None:
    first = scene()
    data = encoded(first, "MPO", quality=95, save_all=True, append_images=[scene(32, 32)] * 120)
    decoded = decode_image(data)
    assert (decoded.width, decoded.height, decoded.animated) == (64, 48, False)
    assert difference(decoded, first) < 3


def test_scans_of_a_jpeg_are_counted_in_its_first_stream() -> None:
    plain, progressive = encoded(scene(), "JPEG"), encoded(scene(), "JPEG", progressive=True)
    whole = JpegStream(1, complete=True, one_pass=True)
    assert read_jpeg(plain) == whole
    assert read_jpeg(progressive).scans > 5
    assert not read_jpeg(progressive).one_pass
    assert read_jpeg(progressive + progressive) == read_jpeg(progressive)
    assert read_jpeg(plain[:-2]) == JpegStream(1, complete=False, one_pass=True)
    assert read_jpeg(encoded(scene().convert("L"), "JPEG")) == whole
    # A preview inside a segment is part of it; fill bytes and rubbish between segments are skipped.
    preview = b"\xff\xe1" + (len(progressive) + 2).to_bytes(2, "big") + progressive
    assert read_jpeg(plain[:2] + preview + plain[2:]) == whole
    assert read_jpeg(plain[:2] + b"\xff" * 9 + plain[2:]) == whole
    assert read_jpeg(plain[:2] + b"rubbish" + plain[2:]) == whole
    nothing = JpegStream(0, complete=False, one_pass=False)
    assert read_jpeg(b"\xff" * 1_000_000) == read_jpeg(b"") == nothing
    for cut in range(len(plain)):
        read_jpeg(plain[:cut])


def test_decode_large_jpeg_is_measured_by_what_is_decoded_of_it() -> None:
    data = encoded(scene(640, 480), "JPEG", quality=92)
    assert decode_image(data, max_pixels=320 * 240, min_side_px=200).pixels.shape == (240, 320, 3)
    assert reason_of(data, max_pixels=320 * 240 - 1, min_side_px=200) == "too_many_pixels"
    assert reason_of(data, max_pixels=640 * 480 - 1) == "too_many_pixels"
    # Of a progressive file all coefficients are held, at any scale.
    progressive = encoded(scene(640, 480), "JPEG", progressive=True)
    assert decode_image(progressive, min_side_px=200).pixels.shape == (240, 320, 3)
    assert reason_of(progressive, max_pixels=640 * 480 - 1, min_side_px=200) == "too_many_pixels"


def test_decode_too_many_pixels_names_the_flag() -> None:
    with pytest.raises(ImageRejected, match=r"0\.003072 megapixels, 0\.003 at most: raise --max-megapixels"):
        decode_image(encoded(scene()), max_pixels=3_000)

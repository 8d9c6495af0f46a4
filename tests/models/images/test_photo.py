"""Photos as bytes, paths, PIL images and arrays all become the same pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.images import ImageRejected, decode_image, load_pixels
from models.images.photo import is_photo

ROTATED = 6  # EXIF orientation: stored a quarter turn away


@pytest.fixture
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))


def encoded(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, ROTATED])
def test_every_form_of_a_photo_gives_the_same_pixels(
    picture: Image.Image, orientation: int, tmp_path: Path
) -> None:
    data = encoded(picture, orientation)
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    expected = decode_image(data).pixels
    assert expected.shape == ((32, 24, 3) if orientation == ROTATED else (24, 32, 3))
    with Image.open(path) as opened:
        for photo in (data, path, str(path), opened, expected):
            assert np.array_equal(load_pixels(photo), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "CMYK"])
def test_pil_images_of_other_modes_are_converted_as_the_decoder_does(picture: Image.Image, mode: str) -> None:
    image = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(picture.convert("L"))
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    pixels = load_pixels(image)
    assert pixels.shape == (24, 32, 3)
    expected = image.convert("RGB") if mode == "CMYK" else decode_image(file.getvalue()).pixels
    assert np.array_equal(pixels, np.asarray(expected))


def test_grey_arrays_become_rgb(picture: Image.Image) -> None:
    grey = np.asarray(picture.convert("L"))
    pixels = load_pixels(grey)
    assert pixels.shape == (24, 32, 3)
    assert all(np.array_equal(pixels[..., channel], grey) for channel in range(3))


@pytest.mark.parametrize(
    ("size", "limit", "reason"),
    [((64, 64), 4095, "too_many_pixels"), ((801, 16), 20_000, "bad_aspect"), ((7, 64), 20_000, "too_small")],
)
def test_pil_images_over_the_limits_are_rejected(size: tuple[int, int], limit: int, reason: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        load_pixels(Image.new("RGB", size), max_pixels=limit)
    assert caught.value.reason == reason


def test_a_damaged_file_behind_a_pil_image_is_rejected(picture: Image.Image) -> None:
    data = encoded(picture, 1)
    with Image.open(io.BytesIO(data[: len(data) // 2])) as opened, pytest.raises(ImageRejected) as caught:
        load_pixels(opened)
    assert caught.value.reason == "corrupt"


def test_a_rejected_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    for name, reason in (("gone.jpg", "missing"), ("notes.txt", "not_an_image")):
        with pytest.raises(ImageRejected, match=name) as caught:
            load_pixels(tmp_path / name)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((9, 9, 3), np.float32),
        np.zeros((9, 9), bool),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 0, 3), np.uint8),
        np.zeros((2, 9, 9, 3), np.uint8),
    ],
)
def test_other_arrays_are_rejected(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ImageRejected, match=r"pass .*\(H, W, 3\) uint8"):
        load_pixels(array)


def test_other_types_are_rejected() -> None:
    for other in (3, None, [np.zeros((9, 9, 3), np.uint8)]):
        with pytest.raises(TypeError, match="PIL image"):
            load_pixels(other)  # type: ignore[arg-type]


def test_a_batch_is_not_a_photo() -> None:
    rgb = np.zeros((9, 9, 3), np.uint8)
    assert all(
        is_photo(one) for one in (b"", "a.jpg", Path("a.jpg"), rgb, rgb[..., 0], Image.new("L", (1, 1)))
    )
    assert not any(is_photo(some) for some in ([rgb], rgb[None], [], ["a.jpg"]))

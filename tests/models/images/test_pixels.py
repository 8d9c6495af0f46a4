"""Colour modes and transparency become RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

from models.images import decode_image
from models.images.pixels import BACKGROUND
from tests.support.encoded_images import difference, encoded, png, scene


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

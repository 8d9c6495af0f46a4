"""Small drawn photos and broken files for the tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def draw(seed: int, *, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Draw blocks of colour that differ between seeds and survive JPEG."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.NEAREST)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(seed: int, **options: object) -> bytes:
    return encode(draw(seed), "JPEG", quality=92, **options)


def write_photos(
    folder: Path, count: int, *, first: int = 0, step_m: float = 10.0, size: tuple[int, int] = (96, 72)
) -> list[Path]:
    """Write photos whose names carry positions, `step_m` metres apart."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(first, first + count):
        path = folder / f"@{500000 + i * step_m:.2f}@4000000.00@33@T@@@photo{i:05d}@@@@@@@@.jpg"
        path.write_bytes(encode(draw(i, size=size), quality=92))
        paths.append(path)
    return paths


def png_bomb(width: int = 13_000, height: int = 13_000) -> bytes:
    """A PNG of some kilobytes that decodes to very many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(1 + width // 8)) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def broken_files() -> dict[str, tuple[bytes, str]]:
    """File name -> (content, reason expected)."""
    whole = photo(1)
    return {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"hello, this is not a picture", "not_an_image"),
        "truncated.jpg": (whole[: len(whole) // 2], "truncated"),
        "bomb.png": (png_bomb(), "too_many_pixels"),
        "strip.png": (encode(Image.new("L", (6000, 20)), "PNG"), "bad_aspect"),
        "moving.gif": (encode(draw(2), "GIF"), "format_not_allowed"),
        "scan.tif": (encode(draw(3), "TIFF"), "format_not_allowed"),
        "old.bmp": (encode(draw(4), "BMP"), "format_not_allowed"),
        "vector.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format_not_allowed"),
        "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format_not_allowed"),
    }

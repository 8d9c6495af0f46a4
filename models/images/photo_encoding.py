"""Photos encoded as the bytes of a file: whole, for sending, or as thumbnails. Imports no torch."""

from __future__ import annotations

import io
import os

from PIL import Image

from models.images.decoder import decode_image
from models.images.limits import MAX_PIXELS
from models.images.photo import Photo, load_pixels
from models.images.photo_file import read_bytes

__all__ = ["encode_photo", "encode_thumbnail"]

_REDUCING_GAP = 2  # a JPEG is decoded at twice the size of its thumbnail or more, as Pillow's own thumbnails


def encode_photo(photo: Photo) -> bytes:
    """Return a photo as the bytes of a file that `decode_image` reads.

    Args:
        photo: Encoded bytes, and the file of a path, are returned as they are. PIL images and arrays become a
            PNG of the upright pixels that `load_pixels` returns, without loss.

    Raises:
        ImageRejected: the file cannot be read, or as of `load_pixels`.
        TypeError: the photo is of another type.
    """
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, str | os.PathLike):
        return read_bytes(photo)
    file = io.BytesIO()
    # Level 1 takes a third of the time of the default and a few percent more bytes.
    Image.fromarray(load_pixels(photo)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def encode_thumbnail(
    data: bytes, *, max_side_px: int, max_pixels: int = MAX_PIXELS
) -> tuple[bytes, int, int]:
    """Decode an image and encode it again, upright and small, for a page.

    Args:
        data: The encoded file.
        max_side_px: Longest side of the result; a smaller image keeps its size.
        max_pixels: Largest width times height of what is decoded; a larger JPEG is decoded at a reduced size.

    Returns:
        JPEG bytes, width and height.

    Raises:
        ImageRejected: as `decode_image`.
    """
    decoded = decode_image(data, max_pixels=max_pixels, min_side_px=_REDUCING_GAP * max_side_px)
    image = Image.fromarray(decoded.pixels)
    image.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), image.width, image.height

"""The EXIF of a photo file; of most formats without decoding its pixels."""

from __future__ import annotations

from PIL import Image

from models.images.decoder import decode_image
from models.images.exif import PhotoFacts, read_facts
from models.images.limits import ImageRejected
from models.images.pillow_guard import CountedReads, quiet_pillow
from models.images.signatures import recognise

__all__ = ["facts_of_file"]

_LAZY = ("JPEG", "PNG")  # opening the others takes memory for their pixels


def facts_of_file(data: bytes) -> PhotoFacts:
    """Return position, direction and time of a photo.

    Args:
        data: The encoded file.

    Raises:
        ImageRejected: it is not a photo, or cannot be opened.
    """
    kind = recognise(data)
    if kind not in _LAZY:
        photo = decode_image(data)
        return PhotoFacts(photo.lat, photo.lon, photo.heading_deg, photo.captured_at, photo.dropped)
    with quiet_pillow():
        try:
            with Image.open(CountedReads(data), formats=(kind,)) as image:
                return read_facts(image)
        except ImageRejected:
            raise
        except Exception as error:  # on hostile input Pillow raises nearly every built-in type
            message = f"the {kind} file cannot be opened: save it again from an image editor"
            raise ImageRejected("corrupt", message) from error

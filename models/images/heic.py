"""HEIC photos by pillow-heif, which the extra `heic` installs."""

from __future__ import annotations

import functools
import io
from typing import Any

from PIL import Image

from models.images.limits import ImageRejected

__all__ = ["open_heic"]

INSTALL = 'pip install "placeray[heic]"'


def open_heic(file: io.BytesIO) -> Image.Image:
    """Open the primary image of a HEIC file; like `Image.open`, it decodes no pixels yet.

    libheif turns the image upright by the file's own properties and refuses pictures larger than the header
    says. Pillow's list of formats is left as it is.

    Raises:
        ImageRejected: pillow-heif is not installed.
        SyntaxError: the file is damaged.
    """
    plugin = _plugin()
    if plugin is None:
        raise ImageRejected(
            "format_not_allowed",
            f"this is HEIC, which is read after {INSTALL} where photos are decoded: install it, or convert "
            "the photo to JPEG",
        )
    image: Image.Image = plugin(file)
    return image


@functools.cache
def _plugin() -> Any:
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        return None
    return HeifImageFile

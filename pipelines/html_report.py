"""Renders report pages from the Jinja2 templates in `templates/`: one file each, no network, no script."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from models.images import encode_thumbnail
from models.images.limits import MAX_PIXELS

__all__ = ["Thumbnail", "make_thumbnail", "render"]


@dataclass(frozen=True)
class Thumbnail:
    """A small picture inside a page.

    Attributes:
        data_uri: For `src` or `href`.
        width: In pixels.
        height: In pixels.
    """

    data_uri: str
    width: int
    height: int


def make_thumbnail(photo: bytes, *, max_side_px: int, max_pixels: int = MAX_PIXELS) -> Thumbnail:
    """Scale a photo down and encode it into a data URI.

    Args:
        photo: An encoded image.
        max_side_px: Maximum length of the longer side.
        max_pixels: Largest photo, see `decode_image`.

    Raises:
        ImageRejected: the photo cannot be decoded.
    """
    encoded, width, height = encode_thumbnail(photo, max_side_px=max_side_px, max_pixels=max_pixels)
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}", width, height)


def render(template: str, **values: Any) -> bytes:
    """Fill a template; all values are escaped.

    Args:
        template: Name of a file in `templates/`.
        values: What the template shows.

    Returns:
        UTF-8; characters that have no encoding (of file names that are not UTF-8) become question marks.
    """
    return _templates().get_template(template).render(values).encode("utf-8", "replace")


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

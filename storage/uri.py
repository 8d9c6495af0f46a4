"""From a store URI to its folder."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from storage.errors import StoreError

__all__ = ["local_folder"]


def local_folder(uri: str | os.PathLike[str]) -> Path:
    """Return the folder that a store URI names.

    Raises:
        StoreError: the URI is not a local folder.
    """
    text = os.fspath(uri)
    if "://" not in text:
        return Path(text).expanduser().absolute()
    parsed = urlparse(text)
    if parsed.scheme != "file" or parsed.netloc not in ("", "localhost"):
        raise StoreError(
            f"{text}: only local folders are supported: give a path, or mount the bucket as a folder"
        )
    return Path(unquote(parsed.path))

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
            f"{parsed.scheme}://{parsed.hostname or ''} cannot hold a store: give a folder, or a bucket "
            "with a prefix as in s3://bucket/prefix"
        )
    return Path(unquote(parsed.path))

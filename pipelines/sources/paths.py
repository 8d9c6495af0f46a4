"""Paths of images: resolved, UTF-8, and inside the root of their source."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["clean", "contained", "listed_path"]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_URI = re.compile(r"file:(?://(?:(?:localhost|127\.0\.0\.1)?(?=/)|(?=\.\.?/))|(?=/[^/]))", re.IGNORECASE)
_DRIVE = re.compile(r"/?[A-Za-z]:[\\/]|\\\\")


def contained(path: Path, root: Path, *, hint: str = "") -> dict[str, Any]:
    """Resolve a path into a row with its `uri`.

    A path that leaves the root, by `..`, as an absolute path or through a symbolic link, is rejected and
    never opened.

    Args:
        path: Of the image.
        root: Resolved folder that it must stay inside.
        hint: Next step for the message of a path that is outside.
    """
    try:
        resolved = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        return {"uri": clean(str(path)), "rejected": "unreadable", "message": clean(str(error))}
    if not resolved.is_relative_to(root):
        return {"uri": clean(str(path)), "rejected": "outside_root", "message": f"not inside {root}{hint}"}
    if clean(str(resolved)) != str(resolved):
        return {
            "uri": clean(str(path)),
            "rejected": "bad_name",
            "message": "the file name is not UTF-8: rename it",
        }
    return {"uri": str(resolved)}


def listed_path(uri: str, root: Path) -> dict[str, Any]:
    """Resolve a path or a `file://` URI of a listing into a row with its `uri`.

    A relative path with backslashes is one of Windows, unless a file has that very name.
    """
    text = uri
    if (prefix := _FILE_URI.match(uri)) is not None:
        text = unquote(uri[prefix.end() :], errors="surrogateescape")
    elif _URI.match(uri):
        return {
            "uri": clean(uri),
            "rejected": "unsupported_uri",
            "message": "only paths of local files and file:// are supported",
        }
    hint = ": give the folder of the photos with --root"
    if _DRIVE.match(text):
        message = f"a path of a Windows drive, not inside {root}{hint} and list paths relative to it"
        return {"uri": clean(uri), "rejected": "outside_root", "message": message}
    if "\\" in text and not os.path.lexists(os.path.join(root, text.replace("\0", ""))):
        text = text.replace("\\", "/")
    return contained(root / text, root, hint=hint)


def clean(text: str) -> str:
    """Return text without what UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()

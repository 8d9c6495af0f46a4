"""Paths of images: resolved, UTF-8, and inside the root of their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["clean", "contained"]


def contained(path: Path, root: Path) -> dict[str, Any]:
    """Resolve a path into a row with its `uri`.

    A path that leaves the root, by `..`, as an absolute path or through a symbolic link, is rejected and
    never opened.
    """
    try:
        resolved = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        return {"uri": clean(str(path)), "rejected": "unreadable", "message": clean(str(error))}
    if not resolved.is_relative_to(root):
        return {"uri": clean(str(path)), "rejected": "outside_root", "message": f"not inside {root}"}
    if clean(str(resolved)) != str(resolved):
        return {
            "uri": clean(str(path)),
            "rejected": "bad_name",
            "message": "the file name is not UTF-8: rename it",
        }
    return {"uri": str(resolved)}


def clean(text: str) -> str:
    """Return text without what UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()

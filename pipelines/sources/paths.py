"""Paths of images: resolved, UTF-8, and inside the root of their source."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipelines.sources.links import Skipped, is_below, listed_link
from storage.objects.address import is_bucket_uri
from storage.photos.uris import ObjectUri

__all__ = ["clean", "listed_path", "located", "rejected_link"]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_URI = re.compile(r"file:(?://(?:(?:localhost|127\.0\.0\.1)?(?=/)|(?=\.\.?/))|(?=/[^/]))", re.IGNORECASE)
_DRIVE = re.compile(r"/?[A-Za-z]:[\\/]|\\\\")


def located(path: str) -> dict[str, Any]:
    """Return the row of a path without links: its `uri`, or a rejection where the name is not UTF-8."""
    if clean(path) != path:
        return {
            "uri": clean(path),
            "rejected": "bad_name",
            "message": "the file name is not UTF-8: rename it",
        }
    return {"uri": path}


def rejected_link(problem: Skipped) -> dict[str, Any]:
    """Return the row of a link that is not followed."""
    message = f"the link {clean(problem.message)}"
    return {"uri": clean(problem.path), "rejected": problem.reason, "message": message}


def _contained(path: Path, root: Path, *, hint: str = "", follow_links: bool = False) -> dict[str, Any]:
    """Resolve a path into a row with its `uri`.

    A path that leaves the root, by `..`, as an absolute path or through a symbolic link, is rejected and
    never opened.

    Args:
        path: Of the image.
        root: Resolved folder that it must stay inside.
        hint: Next step for the message of a path that is outside.
        follow_links: Whether links in the root may lead out of it.
    """
    named = os.path.normpath(path)
    try:
        resolved = os.path.realpath(path)
    except (OSError, ValueError) as error:
        return {"uri": clean(str(path)), "rejected": "unreadable", "message": clean(str(error))}
    if not is_below(named, str(root)) and not is_below(resolved, str(root)):
        return {"uri": clean(str(path)), "rejected": "outside_root", "message": f"not inside {root}{hint}"}
    if resolved != named or os.path.islink(resolved):  # of a link that leads to itself nothing is resolved
        resolved, problem = listed_link(str(path), str(root), follow=follow_links)
        if problem is not None:
            return rejected_link(problem)
    return located(resolved)


def listed_path(
    uri: str, root: Path | ObjectUri, *, follow_links: bool = False
) -> tuple[dict[str, Any], str]:
    """Resolve a path or URI of a listing into a row with its `uri`, and its name in the root.

    Objects of buckets are named as they stand; `file://` is one form of paths on local disk. Backslashes in a
    relative path are those of Windows, `~/` is the home folder, and letters with accents may be one character
    or two (NFC, NFD), unless a file has that very name.
    """
    if is_bucket_uri(uri) or isinstance(root, ObjectUri):
        return _listed_object(uri, root)
    text = uri
    if (prefix := _FILE_URI.match(uri)) is not None:
        text = unquote(uri[prefix.end() :], errors="surrogateescape")
    elif _URI.match(uri):
        message = "only paths of local files, file://, s3://, gs:// and az:// are supported"
        return {"uri": clean(uri), "rejected": "unsupported_uri", "message": message}, uri
    hint = ": give the folder of the photos with --root"
    if _DRIVE.match(text):
        message = f"a path of a Windows drive, not inside {root}{hint} and list paths relative to it"
        return {"uri": clean(uri), "rejected": "outside_root", "message": message}, uri
    text = _as_on_disk(text, root)
    row = _contained(root / text, root, hint=hint, follow_links=follow_links)
    if "rejected" in row:
        return row, uri
    # Of a file in the root its own name, whatever led to it; of one outside of it the name of the link.
    inside = row["uri"] if is_below(row["uri"], str(root)) else root / text
    return row, clean(os.path.relpath(inside, root))


def _listed_object(uri: str, root: Path | ObjectUri) -> tuple[dict[str, Any], str]:
    """Resolve the name of an object, or one that is relative to the prefix of a bucket."""
    if not is_bucket_uri(uri):
        assert isinstance(root, ObjectUri)
        if uri.startswith(("/", "~/")) or _URI.match(uri) or _FILE_URI.match(uri) or _DRIVE.match(uri):
            message = f"not inside {root}: a listing in a bucket names objects of buckets"
            return {"uri": clean(uri), "rejected": "outside_root", "message": message}, uri
        inside = f"{root.key}/" if root.key else ""
        uri = f"{root.scheme}://{root.bucket}/{inside}{uri.removeprefix('./')}"
    try:
        located = ObjectUri.from_text(uri)
    except ValueError as error:
        shown = uri if "@" not in uri.split("://", 1)[1].split("/", 1)[0] else uri.split("://", 1)[0] + "://"
        return {"uri": clean(shown), "rejected": "unsupported_uri", "message": str(error)}, shown
    if not located.key:
        message = "a bucket is not a photo: give the name of an object in it"
        return {"uri": str(located), "rejected": "unsupported_uri", "message": message}, str(located)
    below = f"{root.key}/" if isinstance(root, ObjectUri) and root.key else ""
    same = isinstance(root, ObjectUri) and (located.scheme, located.bucket) == (root.scheme, root.bucket)
    name = located.key.removeprefix(below) if same and located.key.startswith(below) else str(located)
    return {"uri": str(located)}, name


def _as_on_disk(text: str, root: Path) -> str:
    """Return the variant of a path that exists; of none, that with the separators of this system."""
    if (text.isascii() and "\\" not in text and not text.startswith("~/")) or _is_there(text, root):
        return text
    plain = text.replace("\\", "/")
    if plain.startswith("~/"):
        plain = os.path.expanduser(plain)
    variants = (plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD")))
    return next((variant for variant in variants if _is_there(variant, root)), plain)


def _is_there(text: str, root: Path) -> bool:
    return os.path.lexists(os.path.join(root, text.replace("\0", "")))


def clean(text: str) -> str:
    """Return text without what UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()

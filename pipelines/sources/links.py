"""Symbolic links of a source: where they lead, and why a link is not followed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

__all__ = [
    "DANGLING",
    "OUTSIDE",
    "REPEATED",
    "SKIPPED_LINKS",
    "UNREADABLE",
    "FollowedLinks",
    "Skipped",
    "is_below",
    "is_hidden",
    "listed_link",
    "resolve_link",
    "skipped_paths",
    "with_skipped",
]

OUTSIDE, DANGLING, LOOP = "link_outside", "link_dangling", "link_loop"
SKIPPED_LINKS = (OUTSIDE, DANGLING, LOOP)
# Copies that file servers and systems keep: thumbnails of Synology, recycle bins, snapshots, resource forks.
SYSTEM_FOLDERS = frozenset({"@eadir", "#recycle", "@recycle", "$recycle.bin", "#snapshot", "__macosx"})
REPEATED, UNREADABLE = "link_repeated", "unreadable"


class Skipped(NamedTuple):
    """A link or a folder that is not followed or not read.

    Attributes:
        path: Of the link or the folder.
        reason: One of `SKIPPED_LINKS`, `link_repeated` or `unreadable`.
        message: Where it leads and what to do.
    """

    path: str
    reason: str
    message: str


class FollowedLinks:
    """Decides on the links of one source, so that each photo is listed once and no link leads in a circle.

    Args:
        root: The source's folder, without links in its path.
        follow: Whether links may lead out of it.
    """

    def __init__(self, root: str, *, follow: bool) -> None:
        self.root = root
        self.follow = follow
        self._reached: dict[str, str] = {}

    def check(self, path: str, target: str, *, folder: str, listed: bool) -> Skipped | None:
        """Return why a link is not followed, or None where it is.

        Args:
            path: The link.
            target: Where it leads, without further links.
            folder: The folder that holds it, without links in its path.
            listed: Whether the target would be listed by itself if it lies in the source.
        """
        if is_below(folder, target) or is_below(self.root, target):
            return Skipped(path, LOOP, f"leads back to {target}, which contains it")
        if is_below(target, self.root):
            hidden = any(map(is_hidden, os.path.relpath(target, self.root).split(os.sep)))
            if listed and not hidden:
                return Skipped(path, REPEATED, f"leads to {target}, which is listed by itself")
        elif not self.follow:
            return _outside(path, target, self.root)
        return self.reach(path, target)

    def reach(self, path: str, target: str) -> Skipped | None:
        """Remember a file or folder that a link leads to; return a reason where it was reached before."""
        first = self._reached.setdefault(target, path)
        if first == path:
            return None
        return Skipped(path, REPEATED, f"leads to {target}, which is listed as {first}")


def resolve_link(path: str) -> tuple[str, Skipped | None]:
    """Return where a link leads, without further links, and why it cannot be followed."""
    try:
        return os.path.realpath(path, strict=True), None
    except OSError as error:
        target = os.path.realpath(path)
        if error.errno == errno.ELOOP:
            return target, Skipped(path, LOOP, f"leads in a circle by way of {target}: remove it")
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            message = f"leads to {target}, which does not exist: mount or restore it, or remove the link"
            return target, Skipped(path, DANGLING, message)
        message = f"leads to {target} ({error.strerror}): give this user access"
        return target, Skipped(path, UNREADABLE, message)


def listed_link(path: str, root: str, *, follow: bool) -> tuple[str, Skipped | None]:
    """Return where a path of a listing leads by way of links, and why it is not followed.

    Args:
        path: Absolute.
        root: Folder that links must not leave, without links in its path.
        follow: Whether they may all the same.
    """
    target, problem = resolve_link(path)
    dangling = problem is not None and problem.reason == DANGLING
    if dangling and not os.path.lexists(path) and os.path.isdir(os.path.dirname(target)):
        problem = None  # the links are sound: a file is missing
    if problem is None and not follow and not is_below(target, root):
        problem = _outside(path, target, root)
    return target, problem


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is left out of a listing."""
    return name[0] == "." or name.lower() in SYSTEM_FOLDERS


def is_below(path: str, folder: str) -> bool:
    """Return whether a path without links is a folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _outside(path: str, target: str, root: str) -> Skipped:
    return Skipped(path, OUTSIDE, f"leads to {target}, outside of {root}: follow it with --follow-links")


def with_skipped(listing: pa.Table, skipped: Iterable[Skipped]) -> pa.Table:
    """Attach to a listing the links and folders that have no row in it."""
    pairs = [[text.encode("utf-8", "replace").decode() for text in path] for path in skipped]
    metadata = listing.schema.metadata or {}
    return listing.replace_schema_metadata({**metadata, "skipped": json.dumps(pairs)}) if pairs else listing


def skipped_paths(listing: pa.Table) -> list[Skipped]:
    """Return the links and folders of a source that have no row in its listing."""
    metadata = listing.schema.metadata or {}
    return [Skipped(*values) for values in json.loads(metadata.get(b"skipped", b"[]"))]

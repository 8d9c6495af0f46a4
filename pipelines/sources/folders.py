"""Images of a folder, and of what its links lead to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.sources.links import REPEATED, UNREADABLE, FollowedLinks, Skipped, is_hidden, resolve_link
from pipelines.sources.notes import Note, join_notes
from pipelines.sources.paths import clean, located, rejected_link
from pipelines.sources.standard_name import read_standard_name

__all__ = ["IMAGE_SUFFIXES", "has_image_suffix", "list_folder"]

# These are listed and the decoder judges them by content; files with other suffixes are skipped.
IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".jp2",
        ".eps",
        ".svg",
        ".fits",
        ".ppm",
    }
)


def list_folder(
    root: Path, id_prefix: str, *, follow_links: bool, skipped: list[Skipped]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each image below a folder, in the order of the names.

    Hidden files and folders are left out, and those that file servers keep beside the photos.

    Links are followed inside the folder. An image that several paths lead to is listed once: under its own
    path, or under the first link to it.

    Args:
        root: The folder, without links in its path.
        id_prefix: Prefix of every image id.
        follow_links: Whether links may lead out of the folder.
        skipped: Gets the links and folders that have no row of their own: links to folders, repeated ones.
    """
    for found in _Walk(str(root), follow_links=follow_links, skipped=skipped):
        notes: list[Note] = []
        row = read_standard_name(os.path.basename(found.name), notes)
        row |= {"image_id": id_prefix + clean(found.name), "notes": join_notes(notes)}
        yield row | (located(found.path) if found.problem is None else rejected_link(found.problem))


class _Image(NamedTuple):
    """An image file: its name relative to the root, its path without links, why a link is not followed."""

    name: str
    path: str
    problem: Skipped | None


class _Folder(NamedTuple):
    """A folder to list: what names in it begin with, its path without links, whether a link led to it."""

    prefix: str
    path: str
    linked: bool


class _Walk:
    """The images of a folder and of what its links lead to; see `list_folder`."""

    def __init__(self, root: str, *, follow_links: bool, skipped: list[Skipped]) -> None:
        self._links = FollowedLinks(root, follow=follow_links)
        self._skipped = skipped
        self._folders = [_Folder("", root, False)]

    def __iter__(self) -> Iterator[_Image]:
        while self._folders:
            yield from self._list(self._folders.pop())

    def _list(self, folder: _Folder) -> Iterator[_Image]:
        try:
            with os.scandir(folder.path) as entries:
                visible = sorted(
                    (entry for entry in entries if not is_hidden(entry.name)), key=lambda e: e.name
                )
        except OSError as error:
            message = f"cannot be listed ({error.strerror}): give this user access"
            self._skipped.append(Skipped(folder.path, UNREADABLE, message))
            return
        inner: list[_Folder] = []
        for entry in visible:
            name, image = folder.prefix + entry.name, has_image_suffix(entry.name)
            path, is_folder, problem = self._resolved(entry, folder)
            if is_folder and problem is None:
                inner.append(_Folder(f"{name}/", path, folder.linked or entry.is_symlink()))
            elif problem is None or (image and not is_folder and problem.reason != REPEATED):
                if image:
                    yield _Image(name, path, problem)
            elif image or is_folder or problem.reason != REPEATED:
                self._skipped.append(problem)
        self._folders += reversed(inner)

    def _resolved(self, entry: os.DirEntry[str], folder: _Folder) -> tuple[str, bool, Skipped | None]:
        """Return an entry's path without links, whether it is a folder, and why it is not followed."""
        if not entry.is_symlink():
            is_folder = entry.is_dir(follow_symlinks=False)
            reached = folder.linked and (is_folder or has_image_suffix(entry.name))
            return entry.path, is_folder, self._links.reach(entry.path, entry.path) if reached else None
        path, problem = resolve_link(entry.path)
        if problem is not None:
            return path, False, problem
        is_folder = os.path.isdir(path)
        if not is_folder and not has_image_suffix(entry.name):
            return path, False, None
        listed = is_folder or has_image_suffix(path)
        return path, is_folder, self._links.check(entry.path, path, folder=folder.path, listed=listed)


def has_image_suffix(name: str) -> bool:
    """Return whether a file of this name is listed as an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES

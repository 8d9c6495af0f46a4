"""Images of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.sources.notes import Note, join_notes
from pipelines.sources.paths import clean, contained
from pipelines.sources.standard_name import read_standard_name

__all__ = ["IMAGE_SUFFIXES", "list_folder"]

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
        ".avif",
        ".jp2",
        ".eps",
        ".svg",
        ".fits",
        ".ppm",
    }
)


def list_folder(root: Path, id_prefix: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each image below a folder, sorted by name; hidden files and folders are skipped."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            notes: list[Note] = []
            row = read_standard_name(name, notes)
            row |= {
                "image_id": id_prefix + clean(path.relative_to(root).as_posix()),
                "notes": join_notes(notes),
            }
            yield row | contained(path, root)

"""The frames of a drive, in the order in which they were taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipelines.sources import list_source
from storage.errors import PlacerayError

__all__ = ["MAX_FRAMES", "BadDrive", "frames_of", "natural_key"]

MAX_FRAMES = 20_000
_NUMBER = re.compile(r"(\d+)")
_MAX_DIGITS = 40


class BadDrive(PlacerayError, ValueError):
    """Frames or odometry that make no drive."""

    reason = "bad_drive"


def frames_of(paths: Sequence[str]) -> list[str]:
    """Return the frames of a drive.

    Args:
        paths: One folder, whose images are taken in the order of the numbers in their names; or files, in
            their order.

    Raises:
        BadDrive: a folder among files, or too many frames.
        SourceError: the folder cannot be listed, or has no image.
    """
    folders = [path for path in paths if Path(path).expanduser().is_dir()]
    if not folders:
        frames = list(paths)
    elif len(paths) > 1:
        raise BadDrive(f"{folders[0]} is a folder: give one folder alone, or the frames as files")
    else:
        rows = list_source(folders[0]).to_pylist()
        frames = sorted((row["uri"] for row in rows if not row["rejected"]), key=natural_key)
    if len(frames) > MAX_FRAMES:
        raise BadDrive(f"{len(frames)} frames are more than {MAX_FRAMES}: track the drive in parts")
    return frames


def natural_key(path: str) -> list[tuple[int, int, str]]:
    """Return what paths are ordered by: numbers in names by their value, so that 10 follows 9."""
    return [
        (1, int(part), "") if part.isdigit() and len(part) <= _MAX_DIGITS else (0, 0, part)
        for part in _NUMBER.split(path)
    ]

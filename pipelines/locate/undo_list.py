"""The list of what was written into photos, from which all of it is undone.

One JSON object per line, each on disk before the file that it names changes. Paths are relative to the folder
that the list lies in, and nothing outside of it is ever touched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from models.images import ImageRejected
from models.images.photo_file import read_bytes
from models.images.writing.jpeg_segments import find_exif, replace_exif
from models.images.writing.tiff_gps import NotEmbeddable
from pipelines.locate.errors import BadReview
from pipelines.sources.links import is_below
from storage.durable import explain_write_errors, replace_file
from storage.json_values import parse_object

__all__ = ["UNDO_LIST", "Undone", "Written", "note", "undo"]

UNDO_LIST = "placeray-undo.jsonl"
_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Written:
    """One file that was written.

    Attributes:
        path: Relative to the folder of the list.
        kind: `exif`: the EXIF segment of a JPEG was replaced; `made`: the file is new.
        sha256: Of the file afterwards.
        former_sha256: Of the file before; empty for new ones.
        former_segment: The EXIF segment before, in base64; empty where there was none.
    """

    path: str
    kind: Literal["exif", "made"]
    sha256: str
    former_sha256: str = ""
    former_segment: str = ""


@dataclass(frozen=True)
class Undone:
    """What `undo` did.

    Attributes:
        restored: Photos that are as they were before, byte for byte.
        removed: New files that were removed.
        skipped: Files that were left alone, each with the reason.
    """

    restored: int
    removed: int
    skipped: list[tuple[str, str]]


def note(folder: Path, written: Written) -> None:
    """Add a file that is about to be written to the list of a folder, on disk.

    Raises:
        OutOfSpace, NotWritable: the list cannot be written.
    """
    line = json.dumps(asdict(written)).encode() + b"\n"
    with explain_write_errors(folder / UNDO_LIST, len(line)), open(folder / UNDO_LIST, "ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def undo(path: str | Path) -> Undone:
    """Undo everything on a list, the last first; the list stays.

    Files that changed since are left alone.

    Args:
        path: The list.

    Raises:
        BadReview: it is not such a list.
        OutOfSpace, NotWritable: a file cannot be written.
    """
    folder = Path(os.path.realpath(Path(path).parent))
    restored, removed = 0, 0
    skipped: list[tuple[str, str]] = []
    for written in reversed(_read(Path(path))):
        target = os.path.realpath(folder / written.path)
        if not is_below(target, str(folder)) or "\0" in written.path:
            skipped.append((written.path, "outside of the folder of the list"))
            continue
        try:
            data = read_bytes(target)
        except ImageRejected as error:
            skipped.append((written.path, str(error)))
            continue
        if hashlib.sha256(data).hexdigest() != written.sha256:
            skipped.append((written.path, "it was never written, undone already, or changed since"))
        elif written.kind == "made":
            with explain_write_errors(target, 0):
                os.unlink(target)
            removed += 1
        elif (former := _former(data, written)) is None:
            skipped.append((written.path, "the list does not hold what it was before"))
        else:
            replace_keeping_mode(Path(target), former)
            restored += 1
    return Undone(restored, removed, skipped)


def replace_keeping_mode(path: Path, data: bytes) -> None:
    """Replace a file atomically; its permissions stay.

    Raises:
        OutOfSpace, NotWritable: it cannot be written.
    """
    mode = path.stat().st_mode & 0o7777
    replace_file(path, data)
    with explain_write_errors(path, 0):
        path.chmod(mode)


def _former(data: bytes, written: Written) -> bytes | None:
    """Return the photo as it was; None where the list does not give it."""
    try:
        segment = base64.b64decode(written.former_segment, validate=True)
        former = replace_exif(data, find_exif(data), segment)
    except (ValueError, NotEmbeddable):
        return None
    return former if hashlib.sha256(former).hexdigest() == written.former_sha256 else None


def _read(path: Path) -> Sequence[Written]:
    try:
        with open(path, "rb") as file:
            lines = file.read(_MAX_BYTES).splitlines()
    except OSError as error:
        raise BadReview(f"{path} cannot be read ({error.strerror}): give the list of undo steps") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            values = parse_object(line)
            if values.keys() != Written.__dataclass_fields__.keys() or values["kind"] not in ("exif", "made"):
                raise ValueError("other fields are expected")
            found.append(Written(**{name: str(value) for name, value in values.items()}))  # type: ignore[arg-type]
        except ValueError as error:
            if number == len(lines):  # cut off by a crash, before its file was written
                break
            raise BadReview(f"{path}, line {number}: {error}: give the list of undo steps") from None
    return found

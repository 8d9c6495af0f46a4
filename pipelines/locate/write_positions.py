"""Writes accepted positions into photos: into copies, or in place, and never over a position.

A JPEG gets it in its EXIF, of which alone the bytes change; other formats, and a JPEG whose EXIF cannot take
it, get an XMP sidecar beside the photo, named after it (`photo.png.xmp`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.images import ImageRejected
from models.images.facts import facts_of_file
from models.images.photo_file import read_bytes
from models.images.writing.jpeg_segments import find_exif, with_position
from models.images.writing.sidecar import names_position, sidecar_of
from models.images.writing.tiff_gps import ExifPosition, NotEmbeddable
from pipelines.locate.errors import BadReview
from pipelines.locate.reviewed import Accepted
from pipelines.locate.undo_list import UNDO_LIST, Written, note, replace_keeping_mode
from pipelines.sources.paths import listed_path
from storage.durable import explain_write_errors, replace_file

__all__ = ["WriteReport", "write_positions"]


@dataclass(frozen=True)
class WriteReport:
    """What was written.

    Attributes:
        accepted: Photos whose place was accepted.
        exif: Those that have the position in their EXIF now.
        sidecars: Those that have it in a sidecar.
        skipped: Those that were left alone, each with the reason.
        skipped_by_reason: Their number by reason.
        folder: Where the photos with their positions are.
        undo_list: What `undo` reads; None where nothing was written.
    """

    accepted: int
    exif: int
    sidecars: int
    skipped: list[tuple[str, str]]
    skipped_by_reason: dict[str, int]
    folder: str
    undo_list: str | None


class _Left(Exception):
    """A photo is left alone, for this reason."""


def write_positions(
    accepted: Sequence[Accepted],
    folder: str | Path | None = None,
    *,
    in_place: bool = False,
    copies: str | Path | None = None,
) -> WriteReport:
    """Write the positions of accepted photos.

    Args:
        accepted: See `read_accepted`.
        folder: Of the photos; default: what the list names.
        in_place: Whether the photos themselves get them.
        copies: Folder of the copies, made where it is missing; default: beside the photos' folder, with
            `-located` behind its name.

    Raises:
        BadReview: there is no folder, or the list names several.
        OutOfSpace, NotWritable: something cannot be written; what was written is on the undo list.
    """
    root = _root(accepted, folder)
    target = root if in_place else Path(copies) if copies else root.with_name(f"{root.name}-located")
    target = Path(os.path.abspath(target.expanduser()))
    if not in_place:
        with explain_write_errors(target, 0):
            target.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    skipped: list[tuple[str, str]] = []
    for photo in accepted:
        try:
            counts[_write(photo, root, target, in_place=in_place)] += 1
        except _Left as reason:
            skipped.append((photo.image, str(reason)))
    written = (target / UNDO_LIST).exists()
    return WriteReport(
        accepted=len(accepted),
        exif=counts["exif"],
        sidecars=counts["sidecar"],
        skipped=skipped,
        skipped_by_reason=dict(Counter(reason for _, reason in skipped)),
        folder=str(target),
        undo_list=str(target / UNDO_LIST) if written else None,
    )


def _root(accepted: Sequence[Accepted], folder: str | Path | None) -> Path:
    named = sorted({photo.folder for photo in accepted})
    if folder is None and len(named) > 1:
        raise BadReview(f"the list names {len(named)} folders: give the one of its photos as FOLDER")
    root = Path(folder if folder is not None else named[0] if named else "").expanduser()
    if not str(folder or (named and named[0])) or not root.is_dir():
        raise BadReview(f"{str(root)!r} is not a folder: give that of the photos as FOLDER")
    return Path(os.path.realpath(root))


def _write(photo: Accepted, root: Path, target: Path, *, in_place: bool) -> str:
    """Write one position; return `exif` or `sidecar`.

    Raises:
        _Left: the photo is left alone.
    """
    if photo.lat is None or photo.lon is None:
        raise _Left("no_degrees")
    name, path = _found(photo, root)
    data = _unchanged(photo, path)
    _require_no_position(data, path)
    place = target / name
    if not in_place:
        _require_free(place)
    position = ExifPosition(photo.lat, photo.lon, photo.radius_m)
    try:
        written = with_position(data, position)
    except NotEmbeddable:
        return _write_sidecar(place, path, data, sidecar_of(position), target, in_place=in_place)
    digest = hashlib.sha256(written).hexdigest()
    if in_place:
        segment = find_exif(data)
        former = base64.b64encode(data[segment.begin : segment.end]).decode()
        was = hashlib.sha256(data).hexdigest()
        note(target, Written(name, "exif", digest, was, former))
        replace_keeping_mode(place, written)
    else:
        note(target, Written(name, "made", digest))
        _make(place, written, path)
    return "exif"


def _write_sidecar(
    place: Path, path: Path, data: bytes, sidecar: bytes, target: Path, *, in_place: bool
) -> str:
    beside = place.with_name(f"{place.name}.xmp")
    _require_free(beside)
    if not in_place:
        note(target, Written(os.path.relpath(place, target), "made", hashlib.sha256(data).hexdigest()))
        _make(place, data, path)
    note(target, Written(os.path.relpath(beside, target), "made", hashlib.sha256(sidecar).hexdigest()))
    replace_file(beside, sidecar)
    return "sidecar"


def _found(photo: Accepted, root: Path) -> tuple[str, Path]:
    """Return the name and the path of a photo; a spreadsheet may have put an apostrophe before its name."""
    for name in dict.fromkeys((photo.image, photo.image.removeprefix("'"))):
        row, inside = listed_path(name, root)
        if row.get("rejected") is not None:
            raise _Left(str(row["rejected"]))
        if os.path.isfile(row["uri"]):
            return inside, Path(row["uri"])
    raise _Left("missing")


def _unchanged(photo: Accepted, path: Path) -> bytes:
    try:
        data = read_bytes(path)
    except ImageRejected as error:
        raise _Left(error.reason) from None
    if photo.sha256 and hashlib.sha256(data).hexdigest() != photo.sha256:
        raise _Left("changed")
    return data


def _require_no_position(data: bytes, path: Path) -> None:
    """Leave a photo alone that has a position in its EXIF, its XMP or a sidecar."""
    try:
        facts = facts_of_file(data)
        inside = names_position(find_exif(data).xmp)
    except ImageRejected as error:
        raise _Left(error.reason) from None
    except NotEmbeddable:  # another format, whose XMP may be anywhere
        inside = b"exif:GPSLatitude" in data
    # One that cannot be read is somebody's too; 0, 0 and 0/0 are written by devices without a fix.
    damaged = any(dropped.reason == "bad_position" for dropped in facts.dropped)
    if facts.lat is not None or inside or damaged:
        raise _Left("has_position")
    for sidecar in (path.with_name(f"{path.name}.xmp"), path.with_suffix(".xmp")):
        try:
            if sidecar.exists() and names_position(read_bytes(sidecar)):
                raise _Left("has_position")
        except ImageRejected:
            raise _Left("unreadable_sidecar") from None


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise _Left("exists")


def _make(place: Path, data: bytes, original: Path) -> None:
    with explain_write_errors(place, len(data)):
        place.parent.mkdir(parents=True, exist_ok=True)
    replace_file(place, data)
    with explain_write_errors(place, 0):
        shutil.copystat(original, place)

"""The database of an evaluation: what the store lacks of it is indexed, so that no part of it is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.images import ImageRejected, decode_image
from models.images.photo_file import read_bytes
from pipelines.indexing.job import index
from pipelines.sources import SourceError, list_source
from storage.errors import NotWritable, StoreNotFound
from storage.position import POSITION_COLUMNS, Position
from storage.store import Store

__all__ = ["Completed", "complete_store"]

_COMPARED_FILES = 32  # whose content is compared with the store's


@dataclass(frozen=True)
class Completed:
    """What was done about the database.

    Attributes:
        indexed: Images that were indexed for this evaluation.
        rejected: Images of the database that are not in the store, because they cannot be used.
        elsewhere: Stored images that are not in the database; they are searched with the others.
    """

    indexed: int
    rejected: int
    elsewhere: int


def complete_store(
    database: Path,
    store_uri: str,
    *,
    say: Callable[[str], None],
    root: str | Path | None = None,
    follow_links: bool = False,
    **options: Any,
) -> Completed:
    """Index the images of a database that a store lacks, or whose position it has otherwise.

    A store that lacks nothing is only read.

    Args:
        database: Folder or listing.
        store_uri: The store; created if there is none.
        say: Called with a sentence before images are indexed.
        root: Folder that the paths of a listing are relative to.
        follow_links: Whether symbolic links may lead out of the folder.
        options: Further arguments of `pipelines.indexing.job.index`.

    Raises:
        SourceError: the database cannot be listed, or the store is one of other images.
        NotWritable: images are missing and the store cannot be written.
        StoreError: as `index`.
    """
    listing = list_source(database, root=root, follow_links=follow_links)
    try:
        known: pa.Table | None = Store.open(store_uri).metadata()
    except StoreNotFound:
        known = None
    rows, before = _usable(listing), 0 if known is None else known.num_rows
    reason: str | None = f"{listing.num_rows} database images"
    if known is not None:
        reason = _lacking(rows, Stored(known), database, store_uri)
    if reason is not None:
        _require_positions(rows, database)
        say(f"indexing {reason}")
        try:
            index(database, store_uri, root=root, follow_links=follow_links, **options)
        except NotWritable as error:
            raise NotWritable(f"{reason} cannot be indexed: {error}") from error
        known = Store.open(store_uri).metadata()
    assert known is not None
    stored = Stored(known)
    if reason is not None and _changed(rows, stored):
        raise SourceError(
            f"the store {store_uri} has other images under the ids of {database}: give another --store"
        )
    here = sum(stored.has(row) for row in rows)
    return Completed(max(0, known.num_rows - before), listing.num_rows - here, max(0, known.num_rows - here))


class Stored:
    """The images of a store, by id and by path.

    Attributes:
        by_id: Row by image id.
        uris: Paths.
    """

    def __init__(self, known: pa.Table) -> None:
        rows = known.select(["image_id", "uri", "sha256", *POSITION_COLUMNS]).to_pylist()
        self.by_id: dict[str, dict[str, Any]] = {row["image_id"]: row for row in rows}
        self.uris = {row["uri"] for row in rows}

    def has(self, row: dict[str, Any]) -> bool:
        """Return whether a listed image is stored, under its id or another one."""
        return row["image_id"] in self.by_id or row["uri"] in self.uris


def _usable(listing: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = listing.filter(pc.is_null(listing["rejected"])).to_pylist()
    return rows


def _lacking(rows: list[dict[str, Any]], stored: Stored, database: Path, store_uri: str) -> str | None:
    """Return in words what the store lacks of the database; None if nothing.

    Raises:
        SourceError: the store is one of other images, or has them under other ids.
    """
    missing = [row for row in rows if not stored.has(row)]
    if stored.by_id and len(missing) == len(rows):
        raise SourceError(
            f"none of the {len(rows)} images of {database} is among the {len(stored.by_id)} of the store "
            f"{store_uri}: give another --store, or index them into this one first, with placeray index "
            f"{database} --store {store_uri}"
        )
    renamed = sum(row["image_id"] not in stored.by_id for row in rows) - len(missing)
    if missing and renamed:
        raise SourceError(
            f"the store {store_uri} has {renamed} images of {database} under other ids and lacks "
            f"{len(missing)}: index the rest in the same way as those, then evaluate again"
        )
    lacking = []
    # Those that cannot be decoded would be missing for ever.
    if any(_can_be_decoded(row["uri"]) for row in missing):
        lacking.append(f"{len(missing)} of {len(rows)} database images that are not in the store {store_uri}")
    if moved := sum(_placed_otherwise(row, stored.by_id.get(row["image_id"])) for row in rows):
        lacking.append(f"{moved} of {len(rows)} database images that have another position in {store_uri}")
    if _changed(rows, stored):
        lacking.append(f"database images that have another content than those of the same id in {store_uri}")
    return ", and ".join(lacking) or None


def _require_positions(rows: list[dict[str, Any]], database: Path) -> None:
    """Check that a photo of the database has a position, before hours of indexing.

    Raises:
        SourceError: none has, so nothing could ever be right.
    """
    if any(Position.of(row).known for row in rows) or any(map(_has_position, (row["uri"] for row in rows))):
        return
    raise SourceError(
        f"none of {len(rows)} database images in {database} has a position, so no answer could be right: "
        "give a listing with coordinates, photos with GPS in their EXIF, or name files @easting@northing@..."
    )


def _has_position(uri: str) -> bool:
    try:
        return decode_image(read_bytes(uri), min_side_px=1).lat is not None
    except ImageRejected:
        return False


def _placed_otherwise(listed: dict[str, Any], stored: dict[str, Any] | None) -> bool:
    """Return whether the listing names another position than the store, which may have one from EXIF."""
    names = (name for name in POSITION_COLUMNS if listed[name] is not None)
    return stored is not None and any(listed[name] != stored[name] for name in names)


def _changed(rows: list[dict[str, Any]], stored: Stored) -> bool:
    """Return whether photos differ from those that the store has under their ids, by a sample of them."""
    for row in rows[:: max(1, len(rows) // _COMPARED_FILES)]:
        known = stored.by_id.get(row["image_id"])
        if known is None or not _can_be_decoded(row["uri"]):
            continue
        if hashlib.sha256(read_bytes(row["uri"])).hexdigest() != known["sha256"]:
            return True
    return False


def _can_be_decoded(uri: str) -> bool:
    try:
        decode_image(read_bytes(uri), min_side_px=1)
    except ImageRejected:
        return False
    return True

"""The database of an evaluation: what the store lacks of it is indexed, so that no part of it is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.images import ImageRejected, decode_image
from models.images.photo_file import read_bytes
from pipelines.indexing.job import index
from pipelines.sources import SourceError, list_source
from storage.errors import NotWritable, StoreNotFound
from storage.position import POSITION_COLUMNS
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
    by_position: bool = True,
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
        by_position: Whether images need a position to be right.
        follow_links: Whether symbolic links may lead out of the folder.
        options: Further arguments of `pipelines.indexing.job.index`.

    Raises:
        SourceError: the database cannot be listed, or the store holds other images.
        NotWritable: images are missing and the store cannot be written.
        StoreError: as `index`.
    """
    listing = list_source(database, root=root, follow_links=follow_links)
    try:
        known: pa.Table | None = Store.open(store_uri).metadata()
    except StoreNotFound:
        known = None
    good, before = listing.filter(pc.is_null(listing["rejected"])), 0 if known is None else known.num_rows
    reason: str | None = f"{listing.num_rows} database images"
    if known is not None:
        reason = _lacking(good, known, database, store_uri)
    if reason is not None:
        if by_position:
            _require_positions(good, database)
        say(f"indexing {reason}")
        try:
            index(database, store_uri, root=root, follow_links=follow_links, **options)
        except NotWritable as error:
            raise NotWritable(f"{reason} cannot be indexed: {error}") from error
        known = Store.open(store_uri).metadata()
    assert known is not None
    if reason is not None and _changed(good, known):
        raise SourceError(
            f"the store {store_uri} has other images under the ids of {database}: give another --store"
        )
    here = pc.sum(_stored(good, known)).as_py() or 0
    return Completed(max(0, known.num_rows - before), listing.num_rows - here, max(0, known.num_rows - here))


def _stored(listed: pa.Table, known: pa.Table) -> pa.ChunkedArray:
    """Return which listed images are stored, under their id or another one."""
    by_id = pc.is_in(listed["image_id"], value_set=known["image_id"])
    return pc.or_(by_id, pc.is_in(listed["uri"], value_set=known["uri"]))


def _lacking(good: pa.Table, known: pa.Table, database: Path, store_uri: str) -> str | None:
    """Return in words what the store lacks of the usable rows of a listing; None if nothing.

    Raises:
        SourceError: the store holds other images, or has them under other ids.
    """
    stored = _stored(good, known)
    missing = good.filter(pc.invert(stored))
    if known.num_rows and missing.num_rows == good.num_rows:
        raise SourceError(
            f"none of the {good.num_rows} images of {database} is among the {known.num_rows} of the store "
            f"{store_uri}: give another --store, or index them into this one first, with placeray index "
            f"{database} --store {store_uri}"
        )
    at = pc.index_in(good["image_id"], value_set=known["image_id"])
    renamed = good.num_rows - missing.num_rows - (len(at) - at.null_count)
    if missing.num_rows and renamed:
        raise SourceError(
            f"the store {store_uri} has {renamed} images of {database} under other ids and lacks "
            f"{missing.num_rows}: index the rest in the same way as those, then evaluate again"
        )
    lacking, total = [], good.num_rows
    # Those that cannot be decoded would be missing for ever.
    if any(_can_be_decoded(uri) for uri in missing["uri"].to_pylist()):
        lacking.append(f"{missing.num_rows} of {total} database images that are not in the store {store_uri}")
    if moved := _count_placed_otherwise(good, known, at):
        lacking.append(f"{moved} of {total} database images that have another position in {store_uri}")
    if _changed(good, known):
        lacking.append(f"database images that have another content than those of the same id in {store_uri}")
    return ", and ".join(lacking) or None


def _require_positions(good: pa.Table, database: Path) -> None:
    """Check that a photo of the database has a position, before hours of indexing.

    Raises:
        SourceError: none has, so nothing could ever be right.
    """
    listed = pc.or_(pc.is_valid(good["lat"]), pc.is_valid(good["utm_e"]))
    if pc.any(listed).as_py() or any(map(_has_position, good["uri"].to_pylist())):
        return
    raise SourceError(
        f"none of {good.num_rows} database images in {database} has a position, so no answer could be right: "
        "give a listing with coordinates, photos with GPS in their EXIF, or name files @easting@northing@..."
    )


def _has_position(uri: str) -> bool:
    try:
        return decode_image(read_bytes(uri), min_side_px=1).lat is not None
    except ImageRejected:
        return False


def _count_placed_otherwise(good: pa.Table, known: pa.Table, at: pa.ChunkedArray) -> int:
    """Count the images for which the listing names another position than the store, which may be from EXIF.

    Args:
        good: Usable rows of the listing.
        known: Rows of the store.
        at: Row of `known` for each of `good`; null where the store has no image of that id.
    """
    stored = known.select(POSITION_COLUMNS).take(at)
    differs = pa.array(np.zeros(good.num_rows, bool))
    for name in POSITION_COLUMNS:
        other = pc.fill_null(pc.not_equal(good[name], stored[name]), True)
        differs = pc.or_(differs, pc.and_(pc.is_valid(good[name]), other))
    return pc.sum(pc.and_(differs, pc.is_valid(at))).as_py() or 0


def _changed(good: pa.Table, known: pa.Table) -> bool:
    """Return whether photos differ from those that the store has under their ids, by a sample of them."""
    sample = good.take(np.arange(0, good.num_rows, max(1, good.num_rows // _COMPARED_FILES)))
    at = pc.index_in(sample["image_id"], value_set=known["image_id"])
    stored = known["sha256"].take(at).to_pylist()
    return any(
        hashlib.sha256(read_bytes(uri)).hexdigest() != sha256
        for uri, sha256 in zip(sample["uri"].to_pylist(), stored, strict=True)
        if sha256 is not None and _can_be_decoded(uri)
    )


def _can_be_decoded(uri: str) -> bool:
    try:
        decode_image(read_bytes(uri), min_side_px=1)
    except ImageRejected:
        return False
    return True

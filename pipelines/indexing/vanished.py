"""Photos that a source no longer has, and the removal of their rows."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.errors import PruneRefused
from pipelines.sources import SKIPPED_LINKS, Note, Skipped, skipped_paths
from storage.store import Store

__all__ = ["Vanished", "find_vanished", "prune", "require_prunable", "vanished_of"]

UNREADABLE = "unreadable"
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Vanished:
    """Rows of a source whose photos it no longer has.

    Attributes:
        source: The folder or listing.
        photos: Image id and uri of each.
        rows: Number of rows that the store has of the source.
        unseen: Folder of the source that could not be listed, and why; None: all could.
    """

    source: str
    photos: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    unseen: Skipped | None = None

    def note(self, *, pruned: bool) -> Note:
        """Return the note on each of the photos."""
        end = "; its row was removed" if pruned else ": remove its row with --prune"
        return Note("missing_from_source", f"no longer in {self.source}{end}")


def find_vanished(listing: pa.Table, known: pa.Table, own: Collection[str], *, id_prefix: str) -> Vanished:
    """Find the rows of a source whose photos its listing does not have, under their id or any other.

    What lies behind a link that was not followed, or in a folder that could not be listed, is not known to be
    gone.

    Args:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`, of one source.
        known: All rows of the store, see `Store.metadata`.
        own: Ids of the rows that the store has of the source.
        id_prefix: Prefix of every image id of the source.
    """
    source = listing["source"][0].as_py()
    rows = known.select(["image_id", "uri"]).filter(pc.is_in(known["image_id"], pa.array(own, pa.string())))
    listed = pc.or_(
        pc.is_in(rows["image_id"], listing["image_id"].combine_chunks()),
        pc.is_in(rows["uri"], listing["uri"].combine_chunks()),
    )
    gone = rows.filter(pc.invert(listed))
    return vanished_of(gone, skipped_paths(listing), source, id_prefix=id_prefix, rows=len(own))


def vanished_of(
    gone: pa.Table, skipped: Iterable[Skipped], source: str, *, id_prefix: str, rows: int
) -> Vanished:
    """Return what vanished of a source, without what may lie where it could not be looked.

    Args:
        gone: image_id and uri of its rows that were not listed.
        skipped: Links and folders without a row of their own.
        source: The folder or listing.
        id_prefix: Prefix of every image id of the source.
        rows: Number of rows that the store has of it.
    """
    unknown = [one for one in skipped if one.reason in (*SKIPPED_LINKS, UNREADABLE)]
    for path, _, _ in unknown:
        below = id_prefix + os.path.relpath(path, source) + "/"
        inside = pc.or_(pc.starts_with(gone["image_id"], below), pc.starts_with(gone["uri"], path + "/"))
        gone = gone.filter(pc.invert(inside))
    photos = tuple(zip(gone["image_id"].to_pylist(), gone["uri"].to_pylist(), strict=True))
    unseen = next((one for one in unknown if one.reason == UNREADABLE), None)
    return Vanished(source, photos, rows, unseen)


def require_prunable(vanished: Vanished, max_share: float) -> None:
    """Check that rows may be removed: half a mount looks like a source that lost half of its photos.

    Raises:
        PruneRefused: a part of the source could not be listed, or a larger share vanished.
    """
    if vanished.unseen is not None:
        raise PruneRefused(
            f"{vanished.unseen.path} {vanished.unseen.message}; nothing is pruned while a part of "
            f"{vanished.source} cannot be seen"
        )
    count, rows = len(vanished.photos), vanished.rows
    if count > max_share * rows:
        needed = -(-1_000 * count // rows) / 1_000
        raise PruneRefused(
            f"{count} of the {rows} images stored from {vanished.source} are no longer in it, a share above "
            f"{max_share:g}: check that all of it is mounted, or allow this with --prune-share {needed:g}"
        )


def prune(store: Store, vanished: Vanished) -> int:
    """Remove the rows of photos that vanished, and return how many there were; needs the lease."""
    ids = [image_id for image_id, _ in vanished.photos]
    return sum(store.delete(ids[at : at + ROWS_AT_ONCE]) for at in range(0, len(ids), ROWS_AT_ONCE))

"""Photos that a source no longer has, and the removal of their rows."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.errors import PruneRefused
from pipelines.sources import SKIPPED_LINKS, Note, Skipped, skipped_paths
from storage.store import Store

__all__ = ["Vanished", "find_vanished", "prune", "require_prunable"]

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
    unknown = [
        skipped for skipped in skipped_paths(listing) if skipped.reason in (*SKIPPED_LINKS, UNREADABLE)
    ]
    for path, _, _ in unknown:
        below = id_prefix + os.path.relpath(path, source) + "/"
        inside = pc.or_(pc.starts_with(gone["image_id"], below), pc.starts_with(gone["uri"], path + "/"))
        gone = gone.filter(pc.invert(inside))
    photos = tuple(zip(gone["image_id"].to_pylist(), gone["uri"].to_pylist(), strict=True))
    unseen = next((skipped for skipped in unknown if skipped.reason == UNREADABLE), None)
    return Vanished(source, photos, len(own), unseen)


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

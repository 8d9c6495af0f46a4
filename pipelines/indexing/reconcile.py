"""What a source means for the rows of a store: a library that moved, ids in use, photos that vanished.

All of it is decided before the first photo is extracted, and nothing is written where a run is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.defaults import PRUNE_SHARE
from pipelines.indexing.collisions import require_same_photos
from pipelines.indexing.errors import UnknownSource
from pipelines.indexing.known import mark_known
from pipelines.indexing.vanished import ROWS_AT_ONCE, Vanished, find_vanished, require_prunable
from pipelines.sources import split_options
from pipelines.tagging.listing import tagged
from serving.priors.errors import TagsNotKept
from storage.objects.address import is_bucket_uri
from storage.store import Store

__all__ = ["WITH_SOURCES", "Change", "Reconciled", "name_source", "reconcile", "require_no_tags"]

SHOWN_SOURCES = 5
WITH_SOURCES = 3  # store format


@dataclass(frozen=True)
class Change:
    """How the rows of a source may change, beside being extracted.

    Attributes:
        id_prefix: Prefix of every image id of the source.
        moved_from: Source that this one was before, or None.
        prune: Whether rows of photos that vanished from the source are removed.
        prune_share: Largest share of the source's rows that may be removed at once.
        options: Of the buckets that photos lie in.
        tags: Given to every image of the source, beside those that it has.
    """

    id_prefix: str = ""
    moved_from: str | Path | None = None
    prune: bool = False
    prune_share: float = PRUNE_SHARE
    options: Mapping[str, str] | None = None
    tags: tuple[str, ...] = ()


class Reconciled(NamedTuple):
    """A listing beside the rows of the store.

    Attributes:
        work: As `mark_known` returns it.
        vanished: Rows of the source whose photos it no longer has.
        upgraded: Whether the store was brought to the newest format.
    """

    work: pa.Table
    vanished: Vanished
    upgraded: bool


def reconcile(store: Store, listing: pa.Table, change: Change) -> Reconciled:
    """Relate a listing to the rows of a store, and give it those of a source that moved; needs the lease.

    Args:
        store: At its head.
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`, of one source.
        change: What is allowed.

    Raises:
        UnknownSource: the store has no row of `change.moved_from`.
        IdsTaken: a source that the store has not seen has other photos under stored ids.
        PruneRefused: too many photos vanished, or a part of the source could not be listed.
        TagsNotKept: tags are given, and the store's format keeps none.
        BadTag: a tag cannot be used, or an image would have too many.
    """
    source = listing["source"][0].as_py()
    known = store.metadata()
    moved = [] if change.moved_from is None else _rows_of_former(store, known, change.moved_from)
    own = {*store.rows_of_source(source), *moved}
    keeps_sources = bool(moved) or store.card.format_version >= WITH_SOURCES
    if not keeps_sources:
        require_no_tags(store, change)
    listing = tagged(listing, known, change.tags)
    work = mark_known(listing, known, own=own, tags=keeps_sources)
    require_same_photos(work, change.options)
    vanished = find_vanished(listing, known, own, id_prefix=change.id_prefix)
    if change.prune:
        require_prunable(vanished, change.prune_share)
    upgraded = bool(moved) and store.upgrade()
    if keeps_sources:
        name_source(store, work, moved, source)
    return Reconciled(work, vanished, upgraded)


def require_no_tags(store: Store, change: Change) -> None:
    """Check that no tags are given, of a store whose format keeps none.

    Raises:
        TagsNotKept: there are some.
    """
    if change.tags:
        raise TagsNotKept(
            f"{store.uri} has format {store.card.format_version}, which keeps no tags: run placeray upgrade "
            f"--store {store.uri}, or leave --tag out"
        )


def _rows_of_former(store: Store, known: pa.Table, moved_from: str | Path) -> list[str]:
    """Return the ids of the rows of a source, of which the folder above is enough.

    Raises:
        UnknownSource: there are none.
    """
    if is_bucket_uri(moved_from):
        names = [split_options(os.fspath(moved_from), None)[0].rstrip("/")]
    else:
        path = os.path.abspath(Path(moved_from).expanduser())
        names = list(dict.fromkeys((path, os.path.realpath(path))))
    sources = sorted(pc.unique(known["source"]).to_pylist())
    for name in names:
        below = [one for one in sources if one.startswith(name.rstrip("/") + "/")]
        ids = {image_id for one in (name, *below) for image_id in store.rows_of_source(one)}
        if ids:
            return sorted(ids)
    shown = ", ".join(sources[:SHOWN_SOURCES]) + ", ..." * (len(sources) > SHOWN_SOURCES)
    raise UnknownSource(
        f"{store.uri} has no photos from {moved_from}: give --moved-from one of its sources ({shown})"
    )


def name_source(store: Store, work: pa.Table, moved: list[str], source: str) -> None:
    """Write the source of stored photos that moved, or that another listing or an older version stored.

    Where the path of a photo changes, both are written together once its content is known.
    """
    same_file = pc.and_(
        pc.equal(work["stored_uri"], work["uri"]), pc.not_equal(work["stored_source"], source)
    )
    renamed = work["image_id"].filter(pc.fill_null(same_file, False)).to_pylist()
    ids = list(dict.fromkeys([*moved, *renamed]))
    for at in range(0, len(ids), ROWS_AT_ONCE):
        part = ids[at : at + ROWS_AT_ONCE]
        store.amend(pa.table({"image_id": part, "source": [source] * len(part)}))

"""Changes the tags of stored images, or counts them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.tagging.change import TagChange
from serving.priors.errors import WITH_TAGS, TagsNotKept
from storage.errors import PlacerayError
from storage.search.filters.tags import tags_of
from storage.search.row_filter import RowFilter
from storage.search.rows_left import rows_left
from storage.store import Store

__all__ = ["NothingSelected", "TagReport", "tag_store"]

_AT_ONCE = 5_000  # rows of one commit


class NothingSelected(PlacerayError, ValueError):
    """No image was chosen whose tags are to be changed."""

    reason = "nothing_selected"


@dataclass(frozen=True)
class TagReport:
    """What `tag_store` did.

    Attributes:
        selected: Images that were chosen.
        changed: Those whose tags changed.
        store_version: Afterwards.
        tags: Number of the chosen images that have each tag, the most frequent first.
    """

    selected: int
    changed: int
    store_version: int
    tags: dict[str, int]


def tag_store(
    store_uri: str,
    change: TagChange,
    *,
    image_ids: Sequence[str] = (),
    source: str | None = None,
    within: RowFilter | None = None,
    everything: bool = False,
    dry_run: bool = False,
) -> TagReport:
    """Change the tags of the chosen images; takes the lease. Without a change they are only counted.

    Args:
        store_uri: The store.
        change: Tags to add and to remove.
        image_ids: Images by their ids.
        source: Images by the folder or listing that they were indexed from.
        within: Images by a filter; of several selections, what is in all of them.
        everything: Every image, where nothing else is given.
        dry_run: Only say what would change.

    Raises:
        NothingSelected: nothing chooses images, or an id is not stored.
        TagsNotKept: the store has a format that keeps no tags.
        BadTag: an image would have too many tags.
        StoreError: the store cannot be read or written.
    """
    changes = bool(change.add or change.remove)
    chosen = bool(image_ids) or source is not None or within is not None
    if changes and not chosen and not everything:
        raise NothingSelected("no image is chosen: choose by --id, --source or a filter, or take --all")
    store = Store.open(store_uri)
    if store.card.format_version < WITH_TAGS:
        raise TagsNotKept(
            f"{store.uri} has format {store.card.format_version}, which keeps no tags: run placeray upgrade "
            f"--store {store.uri}"
        )
    if not changes or dry_run:
        rows, after, changed = _selected(store, change, image_ids, source, within)
        return _report(store, rows, after if changes else rows["tags"], len(changed) if changes else 0)
    with store.lease():
        rows, after, changed = _selected(store, change, image_ids, source, within)
        ids = rows["image_id"].take(changed)
        new = after.take(changed)
        for at in range(0, len(changed), _AT_ONCE):
            part = {"image_id": ids.slice(at, _AT_ONCE), "tags": new.slice(at, _AT_ONCE)}
            store.amend(pa.table(part))
    return _report(store, rows, after, len(changed))


def _selected(
    store: Store,
    change: TagChange,
    image_ids: Sequence[str],
    source: str | None,
    within: RowFilter | None,
) -> tuple[pa.Table, pa.Array, pa.Array]:
    """Return the chosen rows, their tags after the change, and the numbers of those that differ."""
    rows = store.metadata()
    keep: npt.NDArray[np.bool_] = np.ones(len(rows), np.bool_)
    if image_ids:
        wanted = pa.array(sorted(set(image_ids)), pa.string())
        keep &= _isin(rows["image_id"], wanted)
        missing = set(image_ids) - set(rows["image_id"].to_pylist())
        if missing:
            raise NothingSelected(
                f"{len(missing)} of the ids are not in the store (first: {min(missing)!r}): leave them out"
            )
    if source is not None:
        names = dict.fromkeys((source, os.path.abspath(Path(source).expanduser()), os.path.realpath(source)))
        ids = sorted({image_id for name in names for image_id in store.rows_of_source(name)})
        keep &= _isin(rows["image_id"], pa.array(ids, pa.string()))
    if within is not None:
        keep &= rows_left(within, rows)
    rows = rows.filter(pa.array(keep))
    after = change.column(rows["tags"])
    before = pa.array(rows["tags"].to_pylist(), pa.string())
    neither = pc.and_(pc.is_null(before), pc.is_null(after))
    same = pc.or_(pc.fill_null(pc.equal(before, after), False), neither)
    return rows, after, pa.array(np.flatnonzero(~np.asarray(same.to_numpy(zero_copy_only=False), bool)))


def _isin(column: pa.ChunkedArray, values: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.is_in(column, values).to_numpy(), np.bool_)


def _report(store: Store, rows: pa.Table, tags: pa.Array | pa.ChunkedArray, changed: int) -> TagReport:
    counts: Counter[str] = Counter()
    for entry in pc.value_counts(tags).to_pylist():
        for tag in tags_of(entry["values"]):
            counts[tag] += entry["counts"]
    ordered = dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))
    return TagReport(len(rows), changed, store.version, ordered)

"""List the images of a source.

A row that cannot be used stays in the listing with its reason in `rejected`, so that accepted and rejected
rows always add up to the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.sources.errors import SourceError
from pipelines.sources.links import DANGLING, OUTSIDE, with_skipped
from pipelines.sources.notes import with_listing_notes
from pipelines.sources.opened import OpenedSource, open_source
from pipelines.sources.rows import mark_duplicates
from pipelines.sources.schema import LISTING_SCHEMA

__all__ = ["list_source", "listing_batches", "require_images", "whole_listing"]

ROWS_AT_ONCE = 10_000


def list_source(
    source: str | Path,
    *,
    root: str | Path | None = None,
    id_prefix: str = "",
    follow_links: bool = False,
    options: Mapping[str, str] | None = None,
    photo_column: str | None = None,
    needs_paths: bool = True,
) -> pa.Table:
    """List the images of a folder, of a listing, of containers, or of the database of a data set.

    Image ids are paths relative to the folder, or the `image_id` column of a listing, after `id_prefix`; they
    do not change when the folder moves.

    Args:
        source: A folder or a prefix of a bucket; a CSV or Parquet listing; a tar shard, several as
            `train-{000..127}.tar`, or a Parquet file or Lance data set with the photos in a column.
        root: Folder that the paths of a listing are relative to and must stay inside; default: its own.
        id_prefix: Prefix of every image id, to keep several sources apart in one store.
        follow_links: Whether symbolic links may lead out of the folder or the root. Links inside are always
            followed; an image that several lead to is listed once.
        options: Of buckets, such as `endpoint`, beside those of the source's own address.
        photo_column: Column that holds the photos; default: found by its contents.
        needs_paths: Whether rows of a listing without the path of a photo are refused; False where their
            positions alone are wanted.

    Returns:
        One row per image, of `LISTING_SCHEMA`, in the order of the names or of the listing; its metadata has
        notes on the listing as a whole, see `listing_notes`, and skipped links, see `skipped_paths`.

    Raises:
        SourceError: the source does not exist, contains no image, or cannot be read; or all of it are links
            that lead out of it.
        StoreError: a bucket does not exist, or does not answer as it should.
    """
    opened = open_source(
        source,
        root=root,
        id_prefix=id_prefix,
        follow_links=follow_links,
        options=options,
        photo_column=photo_column,
        needs_paths=needs_paths,
    )
    batches = list(listing_batches(mark_duplicates(opened.rows), opened.origin))
    return whole_listing(opened, pa.Table.from_batches(batches, schema=LISTING_SCHEMA))


def whole_listing(opened: OpenedSource, rows: pa.Table) -> pa.Table:
    """Return all rows of a source as `list_source` does.

    Raises:
        SourceError: it has no images, or all are links that lead out of it.
    """
    require_images(opened, Counter(rows["rejected"].to_pylist()))
    return with_skipped(with_listing_notes(rows, opened.notes), opened.skipped)


def listing_batches(rows: Iterable[dict[str, Any]], origin: str) -> Iterator[pa.RecordBatch]:
    """Yield rows as record batches of `LISTING_SCHEMA`; one dictionary per row would take kilobytes."""
    named = (row | {"source": origin} for row in rows)
    for chunk in iter(lambda: list(islice(named, ROWS_AT_ONCE)), []):
        yield pa.RecordBatch.from_pylist(chunk, schema=LISTING_SCHEMA)


def require_images(opened: OpenedSource, reasons: Counter[str | None]) -> None:
    """Refuse a source without images, or of which all are links that lead out of it.

    Args:
        opened: The source, all of which was listed.
        reasons: Number of rows by reason of rejection; None: not rejected.

    Raises:
        SourceError: so it is.
    """
    rows = reasons.total()
    reasons = reasons + Counter(link.reason for link in opened.skipped)
    if reasons[OUTSIDE] and reasons[OUTSIDE] + reasons[DANGLING] == reasons.total():
        raise SourceError(
            f"{opened.name} consists of links that lead out of it ({reasons[OUTSIDE]}): add --follow-links"
        )
    if not rows:
        raise SourceError(f"{opened.name} contains no images: give another folder or listing")

"""List the images of a source.

Every source becomes one Arrow table. A row that cannot be used stays in it with its reason in `rejected`, so
that accepted and rejected rows always add up to the input.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow as pa

from pipelines.sources.containers import SUFFIXES, read_rows
from pipelines.sources.datasets import map_folder
from pipelines.sources.errors import SourceError
from pipelines.sources.folders import list_folder
from pipelines.sources.links import DANGLING, OUTSIDE, Skipped, with_skipped
from pipelines.sources.notes import Note, with_listing_notes
from pipelines.sources.paths import clean
from pipelines.sources.rows import list_rows
from pipelines.sources.schema import LISTING_SCHEMA

__all__ = ["list_source"]


def list_source(
    source: str | Path,
    *,
    root: str | Path | None = None,
    id_prefix: str = "",
    follow_links: bool = False,
) -> pa.Table:
    """List the images of a folder, of a CSV or Parquet listing, or of the database of a data set.

    Image ids are paths relative to the folder, or the `image_id` column of a listing, after `id_prefix`; they
    do not change when the folder moves.

    Args:
        source: The folder or the listing.
        root: Folder that the paths of a listing are relative to and must stay inside; default: its own.
        id_prefix: Prefix of every image id, to keep several sources apart in one store.
        follow_links: Whether symbolic links may lead out of the folder or the root. Links inside are always
            followed; an image that several lead to is listed once.

    Returns:
        One row per image, of `LISTING_SCHEMA`, in the order of the names or of the listing; its metadata has
        notes on the listing as a whole, see `listing_notes`, and skipped links, see `skipped_paths`.

    Raises:
        SourceError: the source does not exist, contains no image, or cannot be read; or all of it are links
            that lead out of it.
    """
    path = Path(source).expanduser()
    notes: list[Note] = []
    skipped: list[Skipped] = []
    if not path.exists():
        raise SourceError(f"{source} does not exist: give a folder, a .csv, .tsv or .parquet file")
    if path.is_dir():
        if root is not None:
            raise SourceError("--root is for CSV and Parquet listings: leave it out for a folder")
        origin = map_folder(path)
        rows = list_folder(origin, id_prefix, follow_links=follow_links, skipped=skipped)
    elif path.suffix.lower() in SUFFIXES:
        folder = Path(root) if root is not None else path.parent
        if not folder.is_dir():
            raise SourceError(
                f"--root {folder} is not a folder: give the folder that the listed paths are relative to"
            )
        origin = path.resolve()
        values, notes = read_rows(path)
        rows = list_rows(values, folder.resolve(), id_prefix, follow_links=follow_links)
    else:
        raise SourceError(
            f"{source} is neither a folder nor a .csv, .tsv or .parquet listing: give one of them"
        )
    # In chunks: one dictionary per row would take a gigabyte for a million photos.
    named = (row | {"source": clean(str(origin))} for row in rows)
    chunks = iter(lambda: list(islice(named, 10_000)), [])
    batches = [pa.RecordBatch.from_pylist(chunk, schema=LISTING_SCHEMA) for chunk in chunks]
    listing = pa.Table.from_batches(batches, schema=LISTING_SCHEMA)
    _refuse_links_alone(source, listing, skipped)
    if listing.num_rows == 0:
        raise SourceError(f"{source} contains no images: give another folder or listing")
    return with_skipped(with_listing_notes(listing, notes), skipped)


def _refuse_links_alone(source: str | Path, listing: pa.Table, skipped: list[Skipped]) -> None:
    """Refuse a source of which nothing can be used, because all of it are links that lead out of it.

    Raises:
        SourceError: so it is.
    """
    reasons = Counter(listing["rejected"].to_pylist())
    reasons.update(link.reason for link in skipped)
    if reasons[OUTSIDE] and reasons[OUTSIDE] + reasons[DANGLING] == reasons.total():
        raise SourceError(
            f"{source} consists of links that lead out of it ({reasons[OUTSIDE]}): add --follow-links"
        )

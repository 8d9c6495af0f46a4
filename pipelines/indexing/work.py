"""The rows of an index run: listed, compared with the store, and handed over in parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import TracebackType

import pyarrow as pa

from pipelines.indexing.large_listing import LargeListing
from pipelines.indexing.reconcile import Change, Reconciled, reconcile
from pipelines.indexing.repeated import mark_repeated
from pipelines.indexing.vanished import Vanished
from pipelines.sources import LISTING_SCHEMA, OpenedSource, listing_batches, whole_listing
from storage.store import Store

__all__ = ["WHOLE_ROWS", "Listed", "Work"]

WHOLE_ROWS = 100_000  # of a source that is compared with the store at once, before anything is done


class Listed:
    """A source whose first rows are in memory.

    Args:
        source: The opened source.
        whole: Whether all rows are read into memory, however many there are.

    Attributes:
        source: The opened source.
        first: Rows of `LISTING_SCHEMA`: all of them, or the first `WHOLE_ROWS`.
        rest: The others; None without any.

    Raises:
        SourceError: the source cannot be read or has no images.
    """

    def __init__(self, source: OpenedSource, *, whole: bool) -> None:
        batches = listing_batches(source.rows, source.origin)
        read = list(batches if whole else _first(batches, WHOLE_ROWS))
        following = next(batches, None)
        first = pa.Table.from_batches(read, schema=LISTING_SCHEMA)
        self.source = source
        self.rest = None if following is None else itertools.chain([following], batches)
        self.first = first
        if self.rest is None:
            numbered = first.append_column("number", pa.array(range(first.num_rows), pa.int64()))
            self.first = whole_listing(source, mark_repeated(numbered).drop_columns("number"))


class Work:
    """What an index run has to do; needs the store's lease.

    Args:
        store: At its head.
        listed: The source.
        change: What is allowed.

    Raises:
        UnknownSource, IdsTaken, PruneRefused: see `pipelines.indexing.reconcile`; of a large source the last
            two are raised by `parts`, before anything is handed over.
    """

    def __init__(self, store: Store, listed: Listed, change: Change) -> None:
        self._source, self._rows = listed.source, listed.first.num_rows
        self._large: LargeListing | None = None
        self._whole: Reconciled | None = None
        if listed.rest is None:
            self._whole = reconcile(store, listed.first, change)
        else:
            self._large = LargeListing(store, listed.source, listed.first, listed.rest, change)

    @property
    def listed(self) -> int:
        """Number of rows that were listed so far."""
        return int(self._rows) if self._large is None else self._large.listed

    @property
    def upgraded(self) -> bool:
        """Whether the store was brought to the newest format."""
        return self._whole is not None and self._whole.upgraded

    @property
    def vanished(self) -> Vanished:
        """Rows of the source whose photos it no longer has; after the last part."""
        found = self._large.vanished if self._large is not None else None
        if self._whole is not None:
            found = self._whole.vanished
        assert found is not None
        return found

    def parts(self) -> Iterator[pa.Table]:
        """Yield the rows as `pipelines.indexing.known.mark_known` returns them; see `LargeListing.parts`."""
        if self._whole is not None:
            yield self._whole.work
        if self._large is not None:
            yield from self._large.parts()

    def __enter__(self) -> Work:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._large is not None:
            self._large.close()  # first: its thread reads the source
        self._source.close()


def _first(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches until there are at least so many rows; later ones stay in the iterator."""
    for batch in batches:
        yield batch
        rows -= batch.num_rows
        if rows <= 0:
            return

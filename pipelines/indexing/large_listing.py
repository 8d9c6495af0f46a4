"""Listings that do not fit into memory, compared with the store by hash partitions on local disk.

The first rows are compared with the store and handed over at once, so that the first photos are decoded
while a thread lists the rest. Then each partition of ids, with what the store has under them, shows known
rows, repeated ids and rows that are gone, whose uris are looked up in partitions of their own. The work comes
back in the order of the listing, in parts. The driver holds one part and one partition at a time.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.collisions import require_same_photos
from pipelines.indexing.columns import METADATA
from pipelines.indexing.known import mark_known
from pipelines.indexing.partitions import Partitions, hashed
from pipelines.indexing.reconcile import WITH_SOURCES, Change, name_source, require_no_tags
from pipelines.indexing.repeated import mark_repeated
from pipelines.indexing.vanished import Vanished, require_prunable, vanished_of
from pipelines.sources import LISTING_SCHEMA, OpenedSource
from pipelines.tagging.listing import tagged
from storage.store import Store
from storage.table.sources import is_of_source, with_sources

__all__ = ["PART_ROWS", "LargeListing"]

PARTITIONS = 128  # each has three files open for a while, of the 1,024 that a process may have
PART_ROWS = 50_000
HEAD_START_S = 30.0  # of the first photos, before the rest is listed beside them
_NUMBERED = pa.schema([*LISTING_SCHEMA, ("number", pa.int64())])
_KNOWN = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "sha256", "source", "tags")),
        *(LISTING_SCHEMA.field(name) for name in METADATA),
        ("own", pa.bool_()),
    ]
)
_GONE = pa.schema([("image_id", pa.string()), ("uri", pa.string())])
_URIS = pa.schema([("uri", pa.string())])


class LargeListing:
    """The rows of a source that is too large for memory; needs the store's lease.

    Args:
        store: At its head.
        source: The opened source; its rows are in `head` and `rest`.
        head: Its first rows, of `LISTING_SCHEMA`.
        rest: The others.
        change: What is allowed; no source that moved.

    Attributes:
        listed: Number of rows so far; all of them once `complete` was called or `parts` handed over two.
        reasons: Number of listed rows by reason of rejection.
        vanished: What the source no longer has, once `complete` was called or `parts` is exhausted.
    """

    def __init__(
        self,
        store: Store,
        source: OpenedSource,
        head: pa.Table,
        rest: Iterator[pa.RecordBatch],
        change: Change,
    ) -> None:
        self._store, self._source, self._change = store, source, change
        self._keeps_sources = store.card.format_version >= WITH_SOURCES
        if not self._keeps_sources:
            require_no_tags(store, change)
        self._folder = Path(tempfile.mkdtemp(prefix="placeray-index-"))
        self._ids = Partitions(self._folder, "ids", _NUMBERED)
        self._uris = Partitions(self._folder, "uris", _URIS)
        self._known = Partitions(self._folder, "known", _KNOWN)
        self._head: pa.Table | None = _numbered(head, 0)
        self._head_rows = head.num_rows
        self._rest = rest
        self._work: Partitions | None = None
        self._own = 0
        self._needed, self._stopped = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self.listed = head.num_rows
        self.reasons: Counter[str | None] = Counter(head["rejected"].to_pylist())
        self.vanished: Vanished | None = None
        self._keep(self._head)
        self._thread = threading.Thread(target=self._list, name="listing", daemon=True)
        self._thread.start()

    def parts(self) -> Iterator[pa.Table]:
        """Yield the rows of the listing as `pipelines.indexing.known.mark_known` returns them, in parts.

        Raises:
            IdsTaken: a source that the store has not seen has other photos under stored ids.
            PruneRefused: too many photos vanished; nothing was handed over.
            SourceError: the rest of the source cannot be read.
            OutOfSpace: the temporary folder is full.
        """
        yield self._first_part()  # of which nothing is kept here
        self.complete()
        assert self._work is not None
        for number in self._work.numbers():
            yield self._named(self._work.read(number).sort_by("uri").drop_columns("number"))

    def complete(self) -> None:
        """Wait until all is listed and compared.

        Raises:
            SourceError: the rest of the source cannot be read.
            OutOfSpace: the temporary folder is full.
        """
        if self._work is not None:
            return
        self._needed.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        self._ids.finish()
        self._uris.finish()
        gone = Partitions(self._folder, "gone", _GONE)
        for number in range(PARTITIONS):
            self._compare(number, gone)
        if self._work is None:  # the head was all of it
            self._work = Partitions(self._folder, "work", _NUMBERED)
        self._work.finish()
        gone.finish()
        self.vanished = self._vanished(gone)

    def close(self) -> None:
        """Stop listing and remove the files."""
        self._stopped.set()
        self._needed.set()
        self._thread.join()
        for partitions in (self._ids, self._uris, self._known, self._work):
            if partitions is not None:
                partitions.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> LargeListing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _list(self) -> None:
        """Divide the rest of the source; runs in a thread, which takes the interpreter from Ray's start."""
        self._needed.wait(HEAD_START_S)
        try:
            for batch in self._rest:
                if self._stopped.is_set():
                    return
                rows = pa.Table.from_batches([batch])
                self._keep(_numbered(rows, self.listed))
                self.listed += rows.num_rows
                self.reasons.update(rows["rejected"].to_pylist())
        except BaseException as error:
            self._failure = error

    def _keep(self, rows: pa.Table) -> None:
        self._ids.add(rows, hashed(rows["image_id"], PARTITIONS))
        self._uris.add(rows, hashed(rows["uri"], PARTITIONS))

    def _first_part(self) -> pa.Table:
        """Return the first rows, after everything that the run may be refused for."""
        assert self._head is not None
        head, self._head = self._head, None
        known = self._divide_known(head["image_id"].combine_chunks())
        work = self._marked(mark_repeated(head), known).drop_columns("number")
        require_same_photos(work, self._change.options)
        if self._change.prune:
            self.complete()
            assert self.vanished is not None
            require_prunable(self.vanished, self._change.prune_share)
        return self._named(work)

    def _divide_known(self, ids: pa.Array) -> pa.Table:
        """Divide the rows of the store; return those with some ids."""
        found = [_KNOWN.empty_table()]
        for batch in self._store.scan(("image_id", "sha256", "source", "tags", *METADATA)):
            own = is_of_source(batch, self._source.origin)
            rows = with_sources(batch).append_column("own", pc.fill_null(own, False))
            rows = rows.select(_KNOWN.names).cast(_KNOWN)
            self._own += pc.sum(rows["own"]).as_py() or 0
            found.append(rows.filter(pc.is_in(rows["image_id"], ids)))
            self._known.add(rows, hashed(rows["image_id"], PARTITIONS))
        self._known.finish()
        return pa.concat_tables(found)

    def _marked(self, rows: pa.Table, known: pa.Table) -> pa.Table:
        own = known.filter(known["own"])["image_id"].to_pylist()
        rows = tagged(rows, known, self._change.tags)
        return mark_known(rows, known, own=own, tags=self._keeps_sources, seen=self._own > 0)

    def _compare(self, number: int, gone: Partitions) -> None:
        """Compare one partition of the listing with that of the store."""
        listed, known = self._ids.read(number), self._known.read(number)
        missing = pc.and_(
            known["own"], pc.invert(pc.is_in(known["image_id"], listed["image_id"].combine_chunks()))
        )
        lost = known.filter(missing)
        gone.add(lost, hashed(lost["uri"], PARTITIONS))
        listed = mark_repeated(listed)
        first = self._head_rows
        rows = listed.filter(pc.greater_equal(listed["number"], first))
        work = self._marked(rows, known)
        if self._work is None:
            self._work = Partitions(self._folder, "work", work.schema)
        self._work.add(work, (work["number"].to_numpy() - first) // PART_ROWS)

    def _vanished(self, gone: Partitions) -> Vanished:
        """Return the rows that were listed neither under their id nor under any other."""
        tables = [_GONE.empty_table()]
        for number in gone.numbers():
            rows, uris = gone.read(number), self._uris.read(number)
            tables.append(rows.filter(pc.invert(pc.is_in(rows["uri"], uris["uri"].combine_chunks()))))
        return vanished_of(
            pa.concat_tables(tables),
            self._source.skipped,
            self._source.origin,
            id_prefix=self._change.id_prefix,
            rows=self._own,
        )

    def _named(self, work: pa.Table) -> pa.Table:
        if self._keeps_sources:
            name_source(self._store, work, [], self._source.origin)
        return work


def _numbered(rows: pa.Table, first: int) -> pa.Table:
    return rows.append_column("number", pa.array(np.arange(first, first + rows.num_rows)))

"""Commits the rows of an index run as they arrive, by number and by time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.columns import amended_columns
from pipelines.indexing.failures import raise_failure
from pipelines.indexing.tally import Tally
from pipelines.indexing.trace import span
from storage.errors import PlacerayError
from storage.store import Store
from storage.table.schema import row_schema

__all__ = ["Committer"]


class Committer:
    """Commits rows when there are `commit_every`, or `commit_seconds` after the last commit.

    Args:
        store: The store; the caller holds its lease.
        tally: Counts the rows.
        commit_every: Images between two commits.
        commit_seconds: Seconds between two commits, if anything has arrived.
        trace: File for timings, see `pipelines.indexing.trace`.
        on_commit: Called with the number of images of each commit.
        clock: Seconds.
    """

    def __init__(
        self,
        store: Store,
        tally: Tally,
        *,
        commit_every: int,
        commit_seconds: float,
        trace: str | None = None,
        on_commit: Callable[[int], None] = lambda rows: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._tally, self._trace = store, tally, trace
        self._commit_every, self._commit_seconds = commit_every, commit_seconds
        self._on_commit, self._clock = on_commit, clock
        optional = ("source", "tags", "code") if store.card.code_bits else ("source", "tags")
        self._schema = row_schema(store.card, optional=optional)
        self._pending: list[pa.Table] = []
        self._last = clock()

    def commit_all(self, rows: Iterable[pa.Table | None]) -> None:
        """Commit rows as they arrive.

        What has arrived is committed too where the run is stopped or ends with an error.

        Args:
            rows: Finished rows; None where there are none for the moment.

        Raises:
            PlacerayError: a failure that a worker reported.
        """
        try:
            for batch in rows:
                if batch is not None:
                    self._take(batch)
                waiting = sum(table.num_rows for table in self._pending)
                if waiting >= self._commit_every or self._clock() - self._last >= self._commit_seconds:
                    self._commit()
        except BaseException:  # Ctrl-C and SIGTERM too
            with contextlib.suppress(PlacerayError):  # the first error is the one to report
                self._commit()
            raise
        self._commit()

    def _take(self, batch: pa.Table) -> None:
        raise_failure(batch)
        self._tally.add(batch)
        amended = batch.filter(pc.and_(batch["unchanged"], batch["amend"]))
        if amended.num_rows:
            self._store.amend(amended.select(amended_columns(self._store.card)))
        self._pending.append(batch.filter(pc.is_valid(batch["shard"])).select(self._schema.names))

    def _commit(self) -> None:
        if not self._pending:
            return
        batch = pa.concat_tables(self._pending).cast(self._schema)
        self._pending.clear()
        self._last = self._clock()
        if batch.num_rows:
            with span(self._trace, "commit", batch.num_rows) as line:
                line["bytes"] = batch.nbytes
                self._store.commit(batch)
            self._on_commit(batch.num_rows)

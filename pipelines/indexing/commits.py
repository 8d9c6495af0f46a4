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

__all__ = ["commit_all"]


def commit_all(
    store: Store,
    rows: Iterable[pa.Table | None],
    tally: Tally,
    *,
    commit_every: int,
    commit_seconds: float,
    trace: str | None = None,
    on_commit: Callable[[int], None] = lambda rows: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Commit rows when there are `commit_every`, or `commit_seconds` after the last commit.

    What has arrived is committed too where the run is stopped or ends with an error.

    Args:
        store: The store; the caller holds its lease.
        rows: Finished rows; None where there are none for the moment.
        tally: Counts them.
        commit_every: Images between two commits.
        commit_seconds: Seconds between two commits, if anything has arrived.
        trace: File for timings, see `pipelines.indexing.trace`.
        on_commit: Called with the number of images of each commit.
        clock: Seconds.

    Raises:
        PlacerayError: a failure that a worker reported.
    """
    schema = row_schema(store.card, optional=("source", "tags"))
    pending: list[pa.Table] = []
    last = clock()

    def commit() -> None:
        batch = pa.concat_tables(pending).cast(schema)
        pending.clear()
        if batch.num_rows:
            with span(trace, "commit", batch.num_rows) as line:
                line["bytes"] = batch.nbytes
                store.commit(batch)
            on_commit(batch.num_rows)

    try:
        for batch in rows:
            if batch is not None:
                raise_failure(batch)
                tally.add(batch)
                amended = batch.filter(pc.and_(batch["unchanged"], batch["amend"]))
                if amended.num_rows:
                    store.amend(amended.select(amended_columns(store.card)))
                pending.append(batch.filter(pc.is_valid(batch["shard"])).select(schema.names))
            due = clock() - last >= commit_seconds
            if pending and (due or sum(table.num_rows for table in pending) >= commit_every):
                commit()
                last = clock()
    except BaseException:  # Ctrl-C and SIGTERM too
        with contextlib.suppress(PlacerayError):  # the first error is the one to report
            if pending:
                commit()
        raise
    if pending:
        commit()

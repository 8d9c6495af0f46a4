"""When the rows of a run are committed, and what a stop keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.indexing.columns import DECODED_SCHEMA
from pipelines.indexing.commits import Committer
from pipelines.indexing.tally import Tally
from storage.store import Store
from tests.support.store_samples import make_card, make_rows


def finished(store: Store, first: int, count: int) -> pa.Table:
    """Rows as a writer returns them."""
    rows = make_rows(store, [f"{number:03}" for number in range(first, first + count)])
    for field in DECODED_SCHEMA:
        if field.name not in rows.column_names:
            value = False if field.name in ("unchanged", "amend") else None
            rows = rows.append_column(field, pa.array([value] * count, field.type))
    return rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", make_card())


def tally() -> Tally:
    return Tally(total=100, progress=lambda *_: None)


def test_commits_by_number_and_by_time(store: Store) -> None:
    now, commits = [0.0], list[tuple[float, int]]()

    def rows() -> Iterator[pa.Table | None]:
        for at, count in ((1.0, 4), (2.0, 4), (3.0, 1), (20.0, 0), (33.0, 0), (34.0, 2), (35.0, 0)):
            now[0] = at
            yield finished(store, int(at) * 10, count) if count else None

    with store.lease():
        Committer(
            store,
            tally(),
            commit_every=8,
            commit_seconds=30.0,
            on_commit=lambda count: commits.append((now[0], count)),
            clock=lambda: now[0],
        ).commit_all(rows())
    assert commits == [(2.0, 8), (33.0, 1), (35.0, 2)]
    assert store.count == 11


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_stopped_run_keeps_what_has_arrived(store: Store, kind: type[BaseException]) -> None:
    def rows() -> Iterator[pa.Table | None]:
        yield finished(store, 0, 5)
        raise kind

    with store.lease(), pytest.raises(kind):
        Committer(store, tally(), commit_every=100, commit_seconds=30.0).commit_all(rows())
    assert Store.open(store.uri).count == 5

"""A writer's memory does not grow with the versions that it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import pytest

from storage.objects.location import open_location
from storage.table import bucket_table, lance_table
from storage.table.bucket_table import BucketTable
from storage.table.checksums import add_checksums
from storage.table.lance_table import LanceTable
from storage.table.open_table import Table, create_table, open_table
from tests.support.store_samples import make_card, rows_of

LIMIT, VERSIONS = 128 << 10, 60  # those versions would take about 1 MiB; an unused session, a few bytes


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Set the limit and return the sessions of LanceDB that are made from now on."""
    monkeypatch.setattr(lance_table, "HEAD_CACHE_BYTES", LIMIT)
    monkeypatch.setattr(bucket_table, "HEAD_CACHE_BYTES", LIMIT)
    made: list[Any] = []
    make = lancedb.Session

    def session(**limits: int) -> Any:
        made.append(make(**limits))
        return made[-1]

    monkeypatch.setattr(lancedb, "Session", session)
    return made


def append_versions(table: Table) -> None:
    rows = add_checksums(rows_of(make_card(), ["each"]), make_card())
    for _ in range(VERSIONS):
        table.append(rows)
    assert table.count() == VERSIONS


@pytest.mark.parametrize("opened", [False, True], ids=["created", "opened"])
def test_head_of_a_folder_forgets_the_versions_it_made(
    sessions: list[Any], tmp_path: Path, opened: bool
) -> None:
    table = create_table(tmp_path, make_card())
    if opened:
        sessions.clear()
        table = open_table(tmp_path)
    append_versions(table)
    [session] = sessions
    assert LIMIT // 4 < session.size_bytes <= LIMIT


def test_replaced_table_forgets_the_versions_it_made(sessions: list[Any], tmp_path: Path) -> None:
    table = LanceTable.create(tmp_path, make_card())
    rows = add_checksums(rows_of(make_card(), ["old"]), make_card())
    sessions.clear()
    table.replace_all(iter(rows.slice(0, 0).to_batches()), rows.schema)
    append_versions(table)
    [session] = sessions
    assert LIMIT // 4 < session.size_bytes <= LIMIT


@pytest.mark.parametrize("opened", [False, True], ids=["created", "opened"])
def test_head_of_a_bucket_forgets_the_versions_it_made(
    sessions: list[Any], bucket_uri: str, opened: bool
) -> None:
    table = create_table(open_location(bucket_uri), make_card())
    if opened:
        table = open_table(open_location(bucket_uri))
    append_versions(table)
    assert isinstance(table, BucketTable)
    assert LIMIT // 4 < table.dataset.session().size_bytes() <= LIMIT


def test_pinned_version_keeps_what_it_reads(sessions: list[Any], tmp_path: Path) -> None:
    head = create_table(tmp_path, make_card())
    head.append(add_checksums(rows_of(make_card(), ["each"]), make_card()))
    assert open_table(tmp_path, version=head.version).count() == 1
    assert len(sessions) == 1  # the head's: LanceDB's own limit holds for the pinned version

"""A search on disk finds what lies in any list of the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.care.index_recall import index_recall
from storage.store import Store
from storage.table import bucket_table, lance_table
from tests.support.store_samples import make_card, make_rows

ROWS = 1500


@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.long)])
def test_rows_of_every_list_are_found(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lance_table, bucket_table):
        monkeypatch.setattr(module, "LIST_ROWS", 4)  # some 375 lists, as many as three million rows have
    uri = f"{tmp_path}/store"
    if place == "bucket":
        uri = f"{request.getfixturevalue('bucket_uri')}&cache_dir={tmp_path / 'cache'}"
    store = Store.create(uri, make_card(dim=64))
    with store.lease():
        store.commit(make_rows(store, [f"id{row}" for row in range(ROWS)]))
        store.build_index(min_rows=0)
    assert index_recall(store.table) >= 0.99

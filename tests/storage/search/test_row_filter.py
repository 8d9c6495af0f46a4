"""Filtered search by every method against a search of the rows that are left."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from storage.search.methods import SearchMethod
from storage.search.rows_left import rows_left
from storage.store import Store
from tests.support.row_filters import Between, Tagged
from tests.support.search_samples import SEARCH_DIM, exact_search, seeded_queries
from tests.support.store_samples import make_old_store, make_store, rows_of

IDS = [f"id{i:05d}" for i in range(2500)]
FILTERS = [Between(5, 6), Between(5, 6, told=False), Between(0, 100), Between(60, 61), Tagged("7")]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, pa.Table]:
    store = make_store(tmp_path_factory.mktemp("filtered"), ["owner"], dim=SEARCH_DIM)
    with store.lease():
        rows = rows_of(store.card, IDS, shard=store.get(["owner"])[0].shard)
        tags = ['["7th"]' if i % 9 == 0 else None for i in range(len(IDS))]
        store.commit(rows.append_column("tags", pa.array(tags, pa.string())))
        store.delete(["owner"])
    return store, pa.concat_tables(store.snapshot.table.scan())


@pytest.mark.parametrize("within", FILTERS, ids=str)
@pytest.mark.parametrize("method", ["exact", "ivf", "lance"])
def test_filtered_search_finds_the_nearest_of_what_is_left(
    big: tuple[Store, pa.Table],
    method: SearchMethod,
    within: Between | Tagged,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, rows = big
    monkeypatch.setattr("storage.search.lance_searcher._COMPARED_ROWS", 300)  # beyond, by asking for more
    left = rows.filter(pa.array(rows_left(within, rows)))
    queries, k = seeded_queries(3, 5), 40
    answers = store.search(queries, k=k, method=method, within=within)
    for answer, expected in zip(answers, exact_search(left, queries, k), strict=True):
        assert [c.record.image_id for c in answer] == [key for key, _ in expected]
    assert store.considered(within, method=method) == len(left)
    assert store.considered(None, method=method) == len(rows)


def test_a_filter_by_tags_finds_nothing_of_a_store_without_them(tmp_path: Path) -> None:
    store = make_old_store(tmp_path, IDS[:20])
    for method in ("exact", "ivf", "lance"):
        assert store.search(seeded_queries(1, 2, 16), k=3, method=method, within=Tagged("day")) == [[], []]
        assert store.considered(Tagged("id0000"), method=method) == 10
        assert store.considered(Between(0, 90), method=method) < 20


def test_a_filter_that_reads_what_is_no_column_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS[:5])
    wrong = Between(0, 1, columns=("altitude",))
    for method in ("exact", "lance"):
        with pytest.raises(ValueError, match=r"\['altitude'\] are not columns of stored rows"):
            store.search(seeded_queries(1, 1, 16), k=3, method=method, within=wrong)

"""Large listings: the same decisions as for small ones, in bounded memory, and the first rows at once."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.indexing import large_listing, partitions
from pipelines.indexing import work as work_module
from pipelines.indexing.errors import PruneRefused
from pipelines.indexing.large_listing import LargeListing
from pipelines.indexing.partitions import Partitions, hashed
from pipelines.indexing.reconcile import Change, reconcile
from pipelines.indexing.work import Listed, Work
from pipelines.sources import LISTING_SCHEMA, OpenedSource, SourceError, list_source, open_source
from storage.errors import OutOfSpace
from storage.store import Store
from tests.support.store_samples import make_rows, make_store, with_column

SOURCE = "s3://photos/city.csv"
POOLS: list[Any] = []


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boundaries that listings of some hundred rows cross many times."""
    monkeypatch.setattr(work_module, "WHOLE_ROWS", 20)
    monkeypatch.setattr(large_listing, "PART_ROWS", 30)
    monkeypatch.setattr(large_listing, "PARTITIONS", 5)
    monkeypatch.setattr(partitions, "COLLECTED_ROWS", 25)
    monkeypatch.setattr("pipelines.sources.listing.ROWS_AT_ONCE", 10)


def store_with(folder: Path, rows: dict[str, tuple[str, str]]) -> Store:
    """Make a store of rows by id: the uri and the source of each."""
    make_store(folder / "store", ["unrelated"])
    store = Store.open(folder / "store")
    made = make_rows(store, list(rows))
    made = with_column(made, "uri", pa.array([uri for uri, _ in rows.values()]))
    made = made.append_column("source", pa.array([source for _, source in rows.values()]))
    with store.lease():
        store.commit(made)
    return store


def listing_of(folder: Path, names: list[str]) -> Path:
    path = folder / "city.csv"
    path.write_text("uri,image_id,heading\n" + "".join(f"s3://photos/{n}.jpg,{n},{len(n)}\n" for n in names))
    return path


def test_the_decisions_are_those_of_small_listings(tmp_path: Path) -> None:
    numbers = random.Random(7)
    names = [f"n{numbers.randrange(300)}" for _ in range(400)]  # many twice
    source = str(listing_of(tmp_path, names))
    known = {f"n{at}": (f"s3://photos/n{at}.jpg", source) for at in range(0, 300, 3)}
    known |= {f"gone{at}": (f"s3://photos/gone{at}.jpg", source) for at in range(9)}
    known |= {f"renamed{at}": (f"s3://photos/n{at}.jpg", source) for at in range(1, 20, 3)}
    known |= {f"n{at}": (f"s3://other/n{at}.jpg", "s3://other") for at in range(1, 300, 9)}
    store = store_with(tmp_path, known)
    with store.lease():
        change = Change(tags=("season",))
        expected = reconcile(store, list_source(source), change)
        with Work(store, Listed(open_source(source), whole=False), change) as work:
            parts = list(work.parts())
            assert work.listed == 400
            assert set(work.vanished.photos) == set(expected.vanished.photos)
            assert work.vanished.rows == expected.vanished.rows
    assert len(expected.vanished.photos) >= 9
    assert len(parts) == 1 + 13
    columns = [name for name in expected.work.column_names if name not in ("message",)]

    def rows(table: pa.Table) -> list[tuple[Any, ...]]:
        return sorted((tuple(row.values()) for row in table.select(columns).to_pylist()), key=repr)

    together = pa.concat_tables(parts)
    assert rows(together) == rows(expected.work)
    assert together["rejected"].to_pylist().count("duplicate_id") == 400 - len(set(names))
    assert sorted(filter(None, together["message"].to_pylist())) == sorted(
        filter(None, expected.work["message"].to_pylist())
    )
    assert not list(Path(tmp_path).glob("placeray-index-*"))


def test_parts_keep_the_order_of_the_listing(tmp_path: Path) -> None:
    names = [f"n{at:04}" for at in range(150)]
    store = store_with(tmp_path, {"x": ("s3://photos/x.jpg", "s3://else")})
    source = open_source(listing_of(tmp_path, names))
    with store.lease(), Work(store, Listed(source, whole=False), Change()) as work:
        together = [image_id for part in work.parts() for image_id in part["image_id"].to_pylist()]
    assert together == names


def test_the_first_part_comes_before_the_listing_ends(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"x": ("s3://photos/x.jpg", "s3://else")})
    handed_over = threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        for at in range(100):
            if at == 60:
                assert handed_over.wait(60)
            yield {"image_id": f"n{at}", "uri": f"s3://photos/n{at}.jpg"}

    source = OpenedSource("city", SOURCE, rows())
    with store.lease(), Work(store, Listed(source, whole=False), Change()) as work:
        parts = work.parts()
        first = next(parts)
        handed_over.set()
        assert first.num_rows + sum(part.num_rows for part in parts) == 100


def test_a_run_that_is_stopped_while_the_rest_is_listed_ends_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_listing, "HEAD_START_S", 0.0)
    store = store_with(tmp_path, {"x": ("s3://photos/x.jpg", "s3://else")})
    listing, closed = threading.Event(), []

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for at in itertools.count():
                if at > 200:
                    listing.set()
                    time.sleep(0.001)
                yield {"image_id": f"n{at}", "uri": f"s3://photos/n{at}.jpg"}
        finally:
            closed.append(True)

    source = OpenedSource("city", SOURCE, rows())
    with (
        contextlib.suppress(KeyboardInterrupt),
        store.lease(),
        Work(store, Listed(source, whole=False), Change()) as work,
    ):
        next(work.parts())
        assert listing.wait(60)
        raise KeyboardInterrupt
    assert closed == [True]


def test_a_listing_that_breaks_off_ends_the_run_after_what_was_handed_over(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"x": ("s3://photos/x.jpg", "s3://else")})

    def rows() -> Iterator[dict[str, Any]]:
        for at in range(70):
            yield {"image_id": f"n{at}", "uri": f"s3://photos/n{at}.jpg"}
        raise SourceError("the listing cannot be read")

    source = OpenedSource("city", SOURCE, rows())
    with store.lease(), Work(store, Listed(source, whole=False), Change()) as work:
        parts = work.parts()
        assert next(parts).num_rows == 20
        with pytest.raises(SourceError):
            next(parts)


def test_nothing_is_handed_over_where_too_much_vanished(tmp_path: Path) -> None:
    source = str(listing_of(tmp_path, [f"n{at}" for at in range(50)]))
    known = {f"gone{at}": (f"s3://photos/gone{at}.jpg", source) for at in range(9)}
    store = store_with(tmp_path, known)
    change = Change(prune=True)
    with store.lease(), Work(store, Listed(open_source(source), whole=False), change) as work:
        parts = work.parts()
        with pytest.raises(PruneRefused):
            next(parts)
    with store.lease():
        change = Change(prune=True, prune_share=1.0)
        with Work(store, Listed(open_source(source), whole=False), change) as work:
            assert sum(part.num_rows for part in work.parts()) == 50
            assert len(work.vanished.photos) == 9


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path, {"x": ("s3://photos/x.jpg", "s3://else")})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(partitions._Writer, "write", full)
    source = open_source(listing_of(tmp_path, [f"n{at}" for at in range(150)]))
    with store.lease(), Work(store, Listed(source, whole=False), Change()) as work:
        parts = work.parts()
        with pytest.raises(OutOfSpace):
            list(parts)


def test_partitions_keep_equal_texts_together_and_all_rows(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), ("at", pa.int64())])
    texts = [f"t{at % 40}" for at in range(200)] + [None]
    with Partitions(tmp_path, "x", schema) as parts:
        for at in range(0, len(texts), 7):
            rows = pa.table(
                {"text": texts[at : at + 7], "at": list(range(at, min(at + 7, len(texts))))}, schema=schema
            )
            parts.add(rows, hashed(rows["text"], 6))
        parts.finish()
        tables = [parts.read(number) for number in range(6)]
    assert sorted(at for table in tables for at in table["at"].to_pylist()) == list(range(201))
    for table in tables:
        assert table["at"].to_pylist() == sorted(table["at"].to_pylist())
    owners = [set(table["text"].to_pylist()) for table in tables]
    assert sum(map(len, owners)) == 41
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "WHOLE_ROWS", 2_000)
    monkeypatch.setattr(large_listing, "PART_ROWS", 2_000)
    monkeypatch.setattr(large_listing, "PARTITIONS", 64)
    monkeypatch.setattr(partitions, "COLLECTED_ROWS", 2_000)
    monkeypatch.setattr("pipelines.sources.listing.ROWS_AT_ONCE", 500)
    store = store_with(tmp_path, {"x": ("s3://photos/x.jpg", "s3://else")})

    def peak(count: int) -> int:
        """Return the peak of Python and Arrow memory while a listing of this many rows is worked through."""
        rows = (
            {"image_id": f"city/street/{at:09}", "uri": f"s3://photos/city/{at:09}.jpg"}
            for at in range(count)
        )
        source = OpenedSource("city", SOURCE, rows)
        before = pa.default_memory_pool()
        watched = pa.proxy_memory_pool(before)
        POOLS.append(watched)  # it has to outlive its buffers
        pa.set_memory_pool(watched)
        tracemalloc.start()
        try:
            with store.lease(), Work(store, Listed(source, whole=False), Change()) as work:
                assert sum(part.num_rows for part in work.parts()) == count
            return tracemalloc.get_traced_memory()[1] + watched.max_memory()
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)

    peak(4_000)  # what is loaded at first use
    small_peak, large_peak = peak(10_000), peak(40_000)
    assert large_peak - small_peak <= 16 * 30_000


def test_an_unused_large_listing_leaves_nothing_behind(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"x": ("s3://photos/x.jpg", "s3://else")})
    head = pa.Table.from_pylist([{"image_id": "a", "uri": "s3://photos/a.jpg"}], schema=LISTING_SCHEMA)
    source = OpenedSource("city", SOURCE, iter(()))
    with LargeListing(store, source, head, iter(()), Change()) as large:
        folder = large._folder
        assert folder.is_dir()
    assert not folder.exists()

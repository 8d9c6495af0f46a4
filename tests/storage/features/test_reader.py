"""Reading features: damaged and missing rows are reported, never raised."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.features import open_shards
from storage.features import reader as module
from storage.features.reader import FeatureReader
from storage.features.row_table import ROW_TABLE_KEY, pack_row_table
from storage.features.shards import file_crc32, shard_path
from tests.storage.features.test_shards import record, rows_of, written
from tests.support.store_samples import CHANNELS, features_of, make_card


def test_fetch_wrong_place_or_missing_shard_is_not_ok(tmp_path: Path) -> None:
    good, other = written(tmp_path, ["a", "b"])
    requested = [
        good,
        replace(good, image_id="b"),
        replace(good, row=2),
        replace(good, row=-1),
        record("a", "no", 0),
    ]
    features, ok = FeatureReader(tmp_path, make_card()).fetch([*requested, other])
    assert ok.tolist() == [True, False, False, False, False, True]
    assert not features[1:5].any()


def test_fetch_other_grid_than_the_card_is_not_ok(tmp_path: Path) -> None:
    records = written(tmp_path, ["a"])
    for channels in (CHANNELS + 1, CHANNELS - 1):
        _, ok = FeatureReader(tmp_path, replace(make_card(), feature_dim=channels)).fetch(records)
        assert not ok.any()


@pytest.mark.parametrize("warm", [False, True])
def test_fetch_one_flipped_bit_is_never_returned(tmp_path: Path, warm: bool) -> None:
    ids = [f"image-{i}" for i in range(4)]
    records = written(tmp_path, ids)
    truth = {i: features_of(i).tobytes() for i in ids}
    path = shard_path(tmp_path, records[0].shard)
    original = path.read_bytes()
    reader = FeatureReader(tmp_path, make_card())
    reader.fetch(records)
    detected = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        damaged = bytearray(original)
        damaged[rng.integers(len(original))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        features, ok = (reader if warm else FeatureReader(tmp_path, make_card())).fetch(records)
        for i, image_id in enumerate(ids):
            assert not ok[i] or features[i].tobytes() == truth[image_id], f"seed {seed}"
        detected += not ok.all()
        assert file_crc32(path) != records[0].shard[-8:], f"seed {seed}"
    # Most bytes of so small a shard are headers and footer, which are not needed while the table is whole.
    assert detected > 10


@pytest.mark.parametrize("warm", [False, True])
def test_fetch_shard_cut_anywhere_reports_and_never_raises(tmp_path: Path, warm: bool) -> None:
    records = written(tmp_path, ["a", "b"])
    path = shard_path(tmp_path, records[0].shard)
    original = path.read_bytes()
    reader = FeatureReader(tmp_path, make_card())
    reader.fetch(records)
    for size in [0, 1, 50, len(original) // 2, len(original) - 1]:
        path.write_bytes(original[:size])
        features, ok = (reader if warm else FeatureReader(tmp_path, make_card())).fetch(records)
        for i in range(2):
            assert not ok[i] or features[i].tobytes() == features_of("ab"[i]).tobytes(), f"size {size}"
        assert warm or not ok.any(), f"size {size}"
    path.unlink()
    assert not reader.fetch(records)[1].any()


def test_fetch_more_shards_than_remembered_still_reads_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_shards, "_MAX_SHARDS", 2)
    records = [written(tmp_path, [f"i{n}"])[0] for n in range(6)]
    reader = FeatureReader(tmp_path, make_card())
    for _ in range(2):
        assert reader.fetch(records)[1].all()
    assert len(reader._tables) == 2


def test_fetch_closes_the_least_recently_used_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_shards, "_MAX_SHARDS", 2)
    first, second, third = (written(tmp_path, [f"i{n}"])[0] for n in range(3))
    reader = FeatureReader(tmp_path, make_card())
    for one in (first, second, first, third):
        assert reader.fetch([one])[1].all()
    assert [one.shard in reader._tables for one in (first, second, third)] == [True, False, True]


def test_fetch_on_many_threads_returns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = written(tmp_path, [f"a{i}" for i in range(9)]) + written(tmp_path, [f"b{i}" for i in range(9)])
    records.append(record("a1", "missing", 0))
    expected, expected_ok = FeatureReader(tmp_path, make_card()).fetch(records[::-1])
    monkeypatch.setattr(module, "_THREAD_BYTES", 1)
    monkeypatch.setattr(module, "_THREADS", 4)
    features, ok = FeatureReader(tmp_path, make_card()).fetch(records[::-1])
    assert features.tobytes() == expected.tobytes()
    assert ok.tolist() == expected_ok.tolist() == [False] + [True] * 18


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("answer", ["nothing", "half", BlockingIOError(), OSError(95, "not supported")])
def test_fetch_rows_not_in_memory_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | OSError, has_table: bool
) -> None:
    records = written(tmp_path, [f"id{i}" for i in range(6)])[::-2]
    if not has_table:
        without_table(shard_path(tmp_path, records[0].shard))
    expected, ok = FeatureReader(tmp_path, make_card()).fetch(records)
    assert ok.all()
    read, refused, awaited = os.preadv, [], []

    def preadv(fd: int, buffers: list[Any], offset: int, flags: int = 0) -> int:
        if not flags:
            awaited.append(len(buffers))
            return read(fd, buffers, offset)
        refused.append(len(buffers))
        if isinstance(answer, OSError):
            raise answer
        return 0 if answer == "nothing" else read(fd, buffers, offset) // 2

    monkeypatch.setattr("os.preadv", preadv)
    reader = FeatureReader(tmp_path, make_card())
    features, ok = reader.fetch(records)
    assert ok.all()
    assert np.array_equal(features, expected)
    parts = 1 if has_table else 2  # without and with the headers
    # Where the flag is not supported, the first row shows it for all rows in the table.
    once = has_table and isinstance(answer, OSError) and answer.errno == 95
    assert refused == [parts] * (1 if once else 3)
    assert awaited == [parts] * 3
    assert np.array_equal(reader.fetch(records)[0], expected)


def test_fetch_leaves_no_file_open(tmp_path: Path) -> None:
    records = written(tmp_path, ["a", "b"])
    reader = FeatureReader(tmp_path, make_card())
    reader.fetch(records)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        reader.fetch(records)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many buffers each reading of a row filled: one without, two with its headers."""
    read, sizes = os.preadv, []

    def preadv(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        sizes.append(len(buffers))
        return read(fd, buffers, offset)  # not every file system can tell what is in memory

    monkeypatch.setattr("os.preadv", preadv)
    return sizes


def test_fetch_reads_no_headers_and_checks_each_time(tmp_path: Path, parts: list[int]) -> None:
    records = written(tmp_path, ["a", "b", "c"])
    reader = FeatureReader(tmp_path, make_card())
    for _ in range(2):
        features, ok = reader.fetch([*records, replace(records[0], image_id="b")])
        assert ok.tolist() == [True, True, True, False]
        assert features[1].tobytes() == features_of("b").tobytes()
        assert parts == [1, 1, 1, 1, 2]  # the last one is requested with another image_id
        parts.clear()
    path = shard_path(tmp_path, records[0].shard)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(features_of("b").tobytes())] ^= 1
    path.write_bytes(damaged)
    assert reader.fetch(records)[1].tolist() == [True, False, True]
    assert parts == [1, 1, 1, 2]


def without_table(path: Path, *, table: bytes | None = None, key: bytes = ROW_TABLE_KEY) -> None:
    """Write a shard anew with another table of rows, or none, as shards were written before there was one."""
    stored = pq.read_table(path)
    with pq.ParquetWriter(
        path,
        stored.schema.remove_metadata(),
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.write_table(stored, row_group_size=1)
        if table is not None:
            writer.add_key_value_metadata({key.decode(): table.decode("latin-1")})


def test_fetch_shard_without_a_table_is_read_with_headers_once(tmp_path: Path, parts: list[int]) -> None:
    ids = ["a", "b", "c"]
    records = written(tmp_path, ids)
    without_table(shard_path(tmp_path, records[0].shard))
    reader = FeatureReader(tmp_path, make_card())
    for expected in ([2, 2, 2], [1, 1, 1]):
        features, ok = reader.fetch(records)
        assert ok.all()
        assert features.tobytes() == np.stack([features_of(i) for i in ids]).tobytes()
        assert parts == expected
        parts.clear()
    assert reader.rows(records[0].shard) == 3


def table_of(ids: list[str], starts: list[int]) -> bytes:
    return pack_row_table(ids, starts, rows_of(ids))


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"AAAA",
        b"no Base64 at all: \x7f",
        table_of(["a", "b"], [1, 2])[:-4],
        table_of(["a", "b"], [1, 2]),
        table_of(["a", "b"], [-5, 2**62]),
        table_of(["b", "a"], [40, 120]),
        table_of(["a"], [40]),
        b"AAAAAA==",  # of no rows
        table_of(["a", "b", "c", "d"], [4, 5, 6, 7]),
        b"placeray.row_table\x18\x7f" * 9,
    ],
)
def test_fetch_wrong_table_loses_no_row(tmp_path: Path, table: bytes) -> None:
    records = written(tmp_path, ["a", "b"])
    without_table(shard_path(tmp_path, records[0].shard), table=table)
    reader = FeatureReader(tmp_path, make_card())
    for _ in range(2):
        features, ok = reader.fetch([*records, replace(records[0], image_id="b")])
        assert ok.tolist() == [True, True, False]
        assert features[:2].tobytes() == np.stack([features_of(i) for i in "ab"]).tobytes()


def test_fetch_shard_with_the_former_table_is_read_with_headers(tmp_path: Path, parts: list[int]) -> None:
    records = written(tmp_path, ["a", "b"])
    former = table_of(["a", "b"], [40, 120])
    without_table(shard_path(tmp_path, records[0].shard), table=former, key=b"placeray.rows")
    features, ok = FeatureReader(tmp_path, make_card()).fetch([*records, replace(records[0], image_id="b")])
    assert ok.tolist() == [True, True, False]
    assert features[:2].tobytes() == np.stack([features_of(i) for i in "ab"]).tobytes()
    assert parts == [2, 2, 2]


def test_fetch_reads_a_table_longer_than_the_first_read(tmp_path: Path, parts: list[int]) -> None:
    ids = [f"image-{i}" for i in range(3000)]
    records = written(tmp_path, ids)
    assert FeatureReader(tmp_path, make_card()).fetch(records)[1].all()
    assert set(parts) == {1}

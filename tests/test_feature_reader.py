"""Reading features back: damage and absence are reported, never raised, however often a row was read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import feature_reader as module
from storage.feature_reader import FeatureReader
from storage.features import file_crc32, shard_path
from tests.store_samples import CHANNELS, features_of, make_card
from tests.test_features import record, written


def test_fetch_wrong_place_or_missing_shard_is_not_ok(tmp_path: Path) -> None:
    good, other = written(tmp_path, ["a", "b"])
    asked = [
        good,
        replace(good, image_id="b"),
        replace(good, row=2),
        replace(good, row=-1),
        record("a", "no", 0),
    ]
    features, ok = FeatureReader(tmp_path, make_card()).fetch([*asked, other])
    assert ok.tolist() == [True, False, False, False, False, True]
    assert not features[1:5].any()


def test_fetch_other_grid_than_the_card_is_not_ok(tmp_path: Path) -> None:
    records = written(tmp_path, ["a"])
    for channels in (CHANNELS + 1, CHANNELS - 1):
        _, ok = FeatureReader(tmp_path, replace(make_card(), feature_dim=channels)).fetch(records)
        assert not ok.any()


@pytest.mark.parametrize("warm", [False, True])
def test_fetch_one_flipped_bit_is_never_answered(tmp_path: Path, warm: bool) -> None:
    ids = [f"image-{i}" for i in range(4)]
    records = written(tmp_path, ids)
    truth = {i: features_of(i).tobytes() for i in ids}
    path = shard_path(tmp_path, records[0].shard)
    original = path.read_bytes()
    reader = FeatureReader(tmp_path, make_card())
    reader.fetch(records)
    lost = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        damaged = bytearray(original)
        damaged[rng.integers(len(original))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        features, ok = (reader if warm else FeatureReader(tmp_path, make_card())).fetch(records)
        for i, image_id in enumerate(ids):
            assert not ok[i] or features[i].tobytes() == truth[image_id], f"seed {seed}"
        lost += not ok.all()
        assert file_crc32(path) != records[0].shard[-8:], f"seed {seed}"
    # Most bytes of so small a shard are headers, which are read once.
    assert lost > (10 if warm else 50)


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


def test_fetch_more_shards_than_remembered_still_reads_all(tmp_path: Path) -> None:
    records = [written(tmp_path, [f"i{n}"])[0] for n in range(6)]
    reader = FeatureReader(tmp_path, make_card(), known_shards=2)
    for _ in range(2):
        assert reader.fetch(records)[1].all()
    assert len(reader._shards) == 2


def test_fetch_forgets_the_shard_that_was_not_read_for_longest(tmp_path: Path) -> None:
    first, second, third = (written(tmp_path, [f"i{n}"])[0] for n in range(3))
    reader = FeatureReader(tmp_path, make_card(), known_shards=2)
    for one in (first, second, first, third):
        assert reader.fetch([one])[1].all()
    assert set(reader._shards) == {first.shard, third.shard}


def test_fetch_on_many_threads_returns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = written(tmp_path, [f"a{i}" for i in range(9)]) + written(tmp_path, [f"b{i}" for i in range(9)])
    records.append(record("a1", "missing", 0))
    expected, expected_ok = FeatureReader(tmp_path, make_card()).fetch(records[::-1])
    monkeypatch.setattr(module, "_THREAD_BYTES", 1)
    monkeypatch.setattr(module, "_THREADS", 4)
    features, ok = FeatureReader(tmp_path, make_card()).fetch(records[::-1])
    assert features.tobytes() == expected.tobytes()
    assert ok.tolist() == expected_ok.tolist() == [False] + [True] * 18


@pytest.mark.parametrize("answer", ["nothing", "half", BlockingIOError(), OSError(95, "not supported")])
def test_fetch_rows_not_in_memory_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | OSError
) -> None:
    records = written(tmp_path, [f"id{i}" for i in range(6)])[::-2]
    reader = FeatureReader(tmp_path, make_card())
    expected, ok = reader.fetch(records)
    assert ok.all()
    read, refused = os.preadv, []

    def preadv(fd: int, buffers: list[Any], offset: int, flags: int = 0) -> int:
        if not flags:
            return read(fd, buffers, offset)
        refused.append(offset)
        if isinstance(answer, OSError):
            raise answer
        return 0 if answer == "nothing" else read(fd, buffers, offset) // 2

    monkeypatch.setattr("os.preadv", preadv)
    features, ok = reader.fetch(records)
    assert ok.all()
    # As rows that were read before, and with their headers; unless no row can be asked for like that.
    assert len(refused) == (2 if isinstance(answer, OSError) and answer.errno else 6)
    assert np.array_equal(reader.fetch(records)[0], expected)
    assert np.array_equal(features, expected)


def test_fetch_leaves_no_file_open(tmp_path: Path) -> None:
    records = written(tmp_path, ["a", "b"])
    reader = FeatureReader(tmp_path, make_card())
    reader.fetch(records)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        reader.fetch(records)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_fetch_row_read_before_is_read_without_its_headers_and_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = written(tmp_path, ["a", "b", "c"])
    reader = FeatureReader(tmp_path, make_card())
    first, ok = reader.fetch(records[:2])
    assert ok.all()
    read, parts = os.preadv, []

    def preadv(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        parts.append(len(buffers))
        return read(fd, buffers, offset)  # not every file system can tell what is in memory

    monkeypatch.setattr("os.preadv", preadv)
    again, ok = reader.fetch([*records, replace(records[0], image_id="b")])
    assert ok.tolist() == [True, True, True, False]
    assert np.array_equal(again[:2], first)
    assert parts == [1, 1, 2, 2]  # what is known first; then the third, and the one asked for by another's id
    parts.clear()
    path = shard_path(tmp_path, records[0].shard)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(first[1].tobytes())] ^= 1
    path.write_bytes(damaged)
    assert reader.fetch(records)[1].tolist() == [True, False, True]
    assert parts == [1, 1, 1, 2]

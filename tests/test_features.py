"""Feature shards: what is written comes back, and damage is reported, never raised."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage import features as module
from storage.errors import InvalidBatch, OutOfSpace
from storage.features import FEATURES_FOLDER, FeatureReader, file_crc32, shard_path, write_shard
from storage.records import ImageRecord
from tests.store_samples import CHANNELS, GRID, features_of, make_card


def record(image_id: str, shard: str, row: int) -> ImageRecord:
    nothing = (None, None, None, None, None, None, None)
    return ImageRecord(image_id, "", "", 1, 1, *nothing, shard, row)


def written(folder: Path, ids: list[str]) -> list[ImageRecord]:
    (folder / FEATURES_FOLDER).mkdir(exist_ok=True)
    shard = write_shard(str(folder), ids, np.stack([features_of(i) for i in ids]))
    return [record(image_id, shard, row) for row, image_id in enumerate(ids)]


def test_write_shard_then_fetch_returns_the_same_bits_in_the_asked_order(tmp_path: Path) -> None:
    records = written(tmp_path, ["a", "b", "ü/c.jpg"]) + written(tmp_path, ["d"])
    asked = [records[i] for i in (3, 1, 2, 0, 1)]
    features, ok = FeatureReader(tmp_path, make_card()).fetch(asked)
    assert ok.all()
    assert features.dtype == np.float16
    assert features.shape == (5, GRID, GRID, CHANNELS)
    assert features.tobytes() == np.stack([features_of(r.image_id) for r in asked]).tobytes()


def test_write_shard_file_is_one_row_group_an_image_with_checksums(tmp_path: Path) -> None:
    records = written(tmp_path, ["a", "b"])
    path = shard_path(tmp_path, records[0].shard)
    table = pq.read_table(path, page_checksum_verification=True)
    assert table["image_id"].to_pylist() == ["a", "b"]
    assert table["features"][1].as_py() == features_of("b").tobytes()
    footer = pq.read_metadata(path)
    assert footer.num_row_groups == 2
    column = footer.row_group(0).column(1)
    assert (column.compression, column.has_dictionary_page, column.is_stats_set) == (
        "UNCOMPRESSED",
        False,
        False,
    )
    assert records[0].shard.endswith(file_crc32(path))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_write_shard_names_are_unique(tmp_path: Path) -> None:
    assert written(tmp_path, ["a"])[0].shard != written(tmp_path, ["a"])[0].shard


@pytest.mark.parametrize(
    ("ids", "features"),
    [
        (["a"], np.zeros((2, 2, 2, 4), np.float16)),
        (["a"], np.zeros((1, 2, 2, 4), np.float32)),
        (["a"], np.zeros((1, 2, 4), np.float16)),
        ([], np.zeros((0, 2, 2, 4), np.float16)),
        (["a"], np.full((1, 2, 2, 4), np.nan, np.float16)),
    ],
)
def test_write_shard_bad_arguments_raise(tmp_path: Path, ids: list[str], features: np.ndarray) -> None:
    (tmp_path / FEATURES_FOLDER).mkdir()
    with pytest.raises(InvalidBatch):
        write_shard(str(tmp_path), ids, features)
    assert not list((tmp_path / FEATURES_FOLDER).iterdir())


def test_write_shard_full_disk_raises_out_of_space_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FEATURES_FOLDER).mkdir()

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "flush", full)
    with pytest.raises(OutOfSpace, match=r"features.*32 bytes"):
        write_shard(str(tmp_path), ["a"], features_of("a")[None])
    assert not list((tmp_path / FEATURES_FOLDER).iterdir())


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
    assert lost > 50  # most bytes of so small a shard are headers; the flips in rows were noticed


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
    assert len(reader._positions) == 2


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
    assert len(refused) == 3
    assert np.array_equal(features, expected)


def test_fetch_leaves_no_file_open(tmp_path: Path) -> None:
    records = written(tmp_path, ["a", "b"])
    reader = FeatureReader(tmp_path, make_card())
    reader.fetch(records)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        reader.fetch(records)
    assert len(os.listdir("/proc/self/fd")) <= before

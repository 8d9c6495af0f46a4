"""Feature shards: exact round trips, full disks and invalid arguments."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.errors import InvalidBatch, OutOfSpace
from storage.features import shards as module
from storage.features.reader import FeatureReader
from storage.features.shards import file_crc32, shard_path, write_shard
from storage.layout import FEATURES_FOLDER
from storage.position import Position
from storage.records import ImageRecord
from tests.support.store_samples import CHANNELS, GRID, features_of, make_card


def record(image_id: str, shard: str, row: int) -> ImageRecord:
    return ImageRecord(image_id, "", "", 1, 1, Position(), None, None, shard, row)


def rows_of(ids: list[str]) -> np.ndarray:
    return np.stack([features_of(i) for i in ids]).reshape(len(ids), -1).view(np.uint8)


def written(folder: Path, ids: list[str]) -> list[ImageRecord]:
    (folder / FEATURES_FOLDER).mkdir(exist_ok=True)
    shard = write_shard(str(folder), ids, rows_of(ids))
    return [record(image_id, shard, row) for row, image_id in enumerate(ids)]


def test_write_shard_then_fetch_returns_the_same_bits_in_the_requested_order(tmp_path: Path) -> None:
    records = written(tmp_path, ["a", "b", "ü/c.jpg"]) + written(tmp_path, ["d"])
    requested = [records[i] for i in (3, 1, 2, 0, 1)]
    features, ok = FeatureReader(tmp_path, make_card()).fetch(requested)
    assert ok.all()
    assert features.dtype == np.float16
    assert features.shape == (5, GRID, GRID, CHANNELS)
    assert features.tobytes() == np.stack([features_of(r.image_id) for r in requested]).tobytes()


def test_write_shard_file_has_one_row_group_per_image_with_checksums(tmp_path: Path) -> None:
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
    ("ids", "rows"),
    [
        (["a"], np.zeros((2, 32), np.uint8)),
        (["a"], np.zeros((1, 16), np.float16)),
        (["a"], np.zeros((1, 2, 4), np.uint8)),
        (["a"], np.zeros((1, 0), np.uint8)),
        ([], np.zeros((0, 32), np.uint8)),
    ],
)
def test_write_shard_bad_arguments_raise(tmp_path: Path, ids: list[str], rows: np.ndarray) -> None:
    (tmp_path / FEATURES_FOLDER).mkdir()
    with pytest.raises(InvalidBatch):
        write_shard(str(tmp_path), ids, rows)
    assert not list((tmp_path / FEATURES_FOLDER).iterdir())


def test_write_shard_full_disk_raises_out_of_space_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FEATURES_FOLDER).mkdir()

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "flush", full)
    with pytest.raises(OutOfSpace, match=r"features.*32 bytes"):
        write_shard(str(tmp_path), ["a"], rows_of(["a"]))
    assert not list((tmp_path / FEATURES_FOLDER).iterdir())

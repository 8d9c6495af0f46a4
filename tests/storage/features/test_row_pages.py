"""Where the rows of a shard without a table of rows begin, from Parquet's metadata."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.features import row_pages as module
from storage.features.row_pages import page_positions, read_row
from storage.features.shards import shard_path, write_shard
from storage.layout import FEATURES_FOLDER
from tests.support.paths import GOLDEN

SHARDS = sorted(GOLDEN.glob(f"*/{FEATURES_FOLDER}/*.parquet"))
ROW_BYTES = 256


def written(folder: Path, rows: int) -> Path:
    (folder / FEATURES_FOLDER).mkdir()
    ids = [f"street/{i}.jpg" for i in range(rows)]
    features = np.random.default_rng(0).integers(256, size=(rows, ROW_BYTES), dtype=np.uint8)
    return Path(str(shard_path(folder, write_shard(str(folder), ids, features))))


def by_arrow(path: Path) -> list[tuple[int, int, int]]:
    """The positions that Arrow's own reader of metadata tells."""
    footer = pq.read_metadata(path)
    positions = []
    for group in map(footer.row_group, range(footer.num_row_groups)):
        key, value = group.column(0), group.column(1)
        end = value.data_page_offset + value.total_compressed_size
        positions.append((key.data_page_offset, value.data_page_offset, end))
    return positions


def test_shards_of_earlier_formats_are_at_hand() -> None:
    assert len(SHARDS) >= 8


def refuse(footer: bytes) -> None:
    raise AssertionError("the whole footer is decoded, which takes thirty times as long")


@pytest.mark.parametrize("path", SHARDS, ids=lambda path: f"{path.parts[-3]}-{path.name[:4]}")
def test_positions_in_shards_of_all_formats_are_found_without_decoding_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "decode_row_groups", refuse)
    assert [tuple(row) for row in page_positions(path)] == by_arrow(path)


def test_shard_of_many_rows_is_found_without_decoding_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "decode_row_groups", refuse)
    path = written(tmp_path, 700)  # offsets of one to three bytes
    positions = page_positions(path)
    assert positions.dtype == np.int64
    assert [tuple(row) for row in positions] == by_arrow(path)


def test_footer_that_another_writer_would_make_is_decoded(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path, 5))
    path = tmp_path / "another.parquet"
    pq.write_table(table, path, row_group_size=1, compression="none", use_dictionary=False)  # with statistics
    assert [tuple(row) for row in page_positions(path)] == by_arrow(path)


def test_columns_that_do_not_adjoin_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, 4)
    data = bytearray(path.read_bytes())
    second = [found.start(2) for found in module._COLUMN.finditer(bytes(data))][2]
    data[second] ^= 2  # begins one byte elsewhere
    path.write_bytes(data)
    believed: list[bytes] = []
    monkeypatch.setattr(module, "decode_row_groups", lambda footer: believed.append(footer) or [])
    assert page_positions(path).shape == (0, 3)
    assert len(believed) == 1


def test_damage_of_the_footer_never_gives_a_row_of_another_image(tmp_path: Path) -> None:
    path = written(tmp_path, 6)
    data, intact = path.read_bytes(), page_positions(path)
    length = int.from_bytes(data[-8:-4], "little")
    refused = misplaced = 0
    out = np.empty(ROW_BYTES, np.uint8)
    for seed in range(400):
        chance = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            damaged[len(data) - 8 - chance.randint(1, length)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            positions = page_positions(path)
        except pa.ArrowInvalid:
            refused += 1
            continue
        with path.open("rb") as file:
            for row, position in enumerate(positions[:6]):
                start, value_at, end = (int(at) for at in position)
                found = read_row(file.fileno(), (start, value_at, end), f"street/{row}.jpg", out)
                if isinstance(found, int):
                    assert found == intact[row, 2] - ROW_BYTES
                else:
                    misplaced += 1
    assert refused > 20
    assert misplaced > 5

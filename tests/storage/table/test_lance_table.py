"""The LanceDB table: exact round trips, pinned versions, keys of any text, concurrent upserts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from storage.errors import CorruptStore
from storage.table.checksums import add_checksums, intact_rows
from storage.table.lance_table import LanceTable, manifest_name
from storage.table.schema import table_schema
from tests.support.store_samples import make_card, rows_of

IDS = [f"id{i}" for i in range(40)]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_table_stores_what_was_committed_bit_for_bit(
    tmp_path: Path, dtype: Literal["float16", "float32"]
) -> None:
    card = make_card(dtype=dtype)
    table = LanceTable.create(tmp_path, card)
    stored = add_checksums(rows_of(card, IDS), card)
    table.append(stored.slice(0, 25))
    table.upsert(stored.slice(20))
    scanned = pa.concat_tables(table.scan()).sort_by("image_id")
    assert scanned.schema.equals(table_schema(card))
    assert scanned.drop_columns(["indexed_at"]).equals(
        stored.sort_by("image_id").drop_columns(["indexed_at"])
    )
    assert len(intact_rows(scanned, card)) == len(IDS)


def test_table_key_column_declares_itself_after_reopening(tmp_path: Path) -> None:
    LanceTable.create(tmp_path, make_card())
    field = LanceTable.open(tmp_path).take([]).schema.field("image_id")
    assert field.metadata == {b"lance-schema:unenforced-primary-key": b"true"}
    assert not field.nullable


def test_table_pinned_version_does_not_move(tmp_path: Path) -> None:
    card = make_card()
    table = LanceTable.create(tmp_path, card)
    table.append(add_checksums(rows_of(card, IDS[:5]), card))
    pinned = LanceTable.open(tmp_path, version=table.version)
    table.append(add_checksums(rows_of(card, IDS[5:]), card))
    assert (pinned.count(), table.count()) == (5, len(IDS))
    assert [version for version, _ in table.versions()] == [1, 2, 3]
    with pytest.raises(CorruptStore, match="version 9"):
        LanceTable.open(tmp_path, version=9)


def test_table_find_and_delete_take_any_text(tmp_path: Path) -> None:
    card = make_card()
    keys = ["plain", "it's", 'a"b', "ünï/çödé", "x); DROP", "%", "a\\b", "line\nbreak"]
    table = LanceTable.create(tmp_path, card)
    table.append(add_checksums(rows_of(card, keys), card))
    for key in keys:
        assert table.find("image_id", [key], ["image_id"])["image_id"].to_pylist() == [key]
    assert len(table.find("image_id", [])) == 0
    table.delete(keys[1:])
    assert pa.concat_tables(table.scan(["image_id"]))["image_id"].to_pylist() == ["plain"]


def test_table_replace_all_keeps_earlier_versions_and_the_key(tmp_path: Path) -> None:
    card = make_card()
    table = LanceTable.create(tmp_path, card)
    table.append(add_checksums(rows_of(card, IDS), card))
    remaining = add_checksums(rows_of(card, IDS[:3]), card)
    table.replace_all(iter(remaining.to_batches()), remaining.schema)
    assert (table.version, table.count()) == (3, 3)
    assert LanceTable.open(tmp_path, version=2).count() == len(IDS)
    assert table.take([]).schema.field("image_id").metadata


def test_manifest_name_counts_down() -> None:
    assert manifest_name(1) == "18446744073709551614.manifest"


RACE = """
import sys, pathlib
from storage.table.checksums import add_checksums
from storage.table.lance_table import LanceTable
from tests.support.store_samples import make_card, rows_of
table = LanceTable.open(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for start in range(0, 40, 10):
    ids = [f"race{i}" for i in range(start, start + 10)]
    table.upsert(add_checksums(rows_of(make_card(), ids, int(sys.argv[2])), make_card()))
"""


@pytest.mark.integration
@pytest.mark.long
def test_table_four_concurrent_upserts_leave_no_duplicates(tmp_path: Path) -> None:
    LanceTable.create(tmp_path, make_card())
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    writers = [subprocess.Popen([*command, str(n)], text=True, **pipes) for n in range(4)]  # type: ignore[call-overload]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    results = [writer.communicate("go\n") for writer in reversed(writers)]
    rows = pa.concat_tables(LanceTable.open(tmp_path).scan(["image_id"]))["image_id"].to_pylist()
    assert sorted(rows) == sorted(f"race{i}" for i in range(40)), results

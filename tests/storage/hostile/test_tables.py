"""Tables of other columns, and versions that name files outside the store, are refused."""

from __future__ import annotations

import os
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.ledger import acknowledge, read_sums
from storage.errors import CorruptStore
from storage.store import Store
from storage.table.lance_table import LanceTable
from tests.support.hostile_stores import (
    IDS,
    VERBS,
    compact,
    delete_one,
    name_outside_files,
    outside,
    take_lease_and_commit,
)


@pytest.mark.parametrize("place", ["{outside}", "s3://bucket/table", "relative"])
def test_versions_that_name_files_elsewhere_are_refused(folder: Path, place: str) -> None:
    name_outside_files(folder, place.format(outside=folder.parent / "victim"))
    before = outside(folder)
    for verb, run in VERBS.items():
        if run is verify_store:
            assert any("outside the store" in problem for problem in verify_store(folder).problems)
            continue
        with pytest.raises(CorruptStore, match="outside the store"):
            run(folder)
        assert outside(folder) == before, verb
    assert not (folder / "quarantine").exists()


def test_shallow_clones_of_another_table_are_refused(folder: Path, tmp_path: Path) -> None:
    """LanceDB makes them with the private format that `name_outside_files` writes."""
    database = lancedb.connect(str(tmp_path / "clone"))
    database.clone_table("records", str(folder / "records.lance"), is_shallow=True)
    assert database.open_table("records").count_rows() == len(IDS)
    with pytest.raises(CorruptStore, match="outside the store"):
        LanceTable.open(tmp_path / "clone")


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([("image_id", pa.string())]),
        pa.schema([("number", pa.int64())]),
        pa.schema([("image_id", pa.int64()), ("shard", pa.binary())]),
    ],
    ids=["keys only", "other columns", "other types"],
)
def test_a_table_of_other_columns_is_refused(folder: Path, schema: pa.Schema) -> None:
    database = lancedb.connect(os.fspath(folder))
    table = database.create_table("records", schema=schema, mode="overwrite")
    acknowledge(folder, LanceTable(folder, table), known=set(read_sums(folder)))
    for run in (Store.open, delete_one, compact, repair_store):
        with pytest.raises(CorruptStore, match="column"):
            run(folder)
    assert not verify_store(folder).ok


@pytest.mark.parametrize(
    ("column", "kind"), [("source", pa.int64()), ("tags", pa.list_(pa.string())), ("code", pa.binary(3))]
)
def test_optional_columns_of_other_types_are_refused(folder: Path, column: str, kind: pa.DataType) -> None:
    table = LanceTable.open(folder)
    table.drop_columns([column])
    table.add_columns(pa.schema([pa.field(column, kind)]))
    acknowledge(folder, table, known=set(read_sums(folder)))
    for run in (Store.open, delete_one, compact, repair_store, VERBS["serve"]):
        with pytest.raises(CorruptStore, match=f"column {column}"):
            run(folder)
    assert not verify_store(folder).ok


def test_columns_of_other_names_are_left_alone(folder: Path) -> None:
    table = LanceTable.open(folder)
    table.add_columns(pa.schema([pa.field("theirs", pa.string())]))
    acknowledge(folder, table, known=set(read_sums(folder)))
    take_lease_and_commit(folder)
    assert "theirs" in LanceTable.open(folder).schema.names
    assert verify_store(folder).ok

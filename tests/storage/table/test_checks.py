"""Validation of rows to store and of query descriptors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import InvalidBatch
from storage.table.checks import check_amendments, check_query, check_rows
from storage.table.schema import descriptor_matrix, row_schema
from tests.support.store_samples import descriptor_of, make_card, rows_of, with_value

IDS = [f"id{i}" for i in range(40)]


def bad_descriptor(kind: str) -> pa.Table:
    rows = rows_of(make_card(), IDS[:3])
    vectors = descriptor_matrix(rows).copy()
    vectors[1] = {"nan": np.nan, "inf": np.inf, "zero": 0, "long": vectors[1] * 2}[kind]
    at = rows.schema.get_field_index("descriptor")
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return rows.set_column(at, rows.schema.field(at), column)


@pytest.mark.parametrize("kind", ["nan", "inf", "zero", "long"])
def test_check_rows_bad_descriptor_names_the_row(kind: str) -> None:
    with pytest.raises(InvalidBatch, match="id1"):
        check_rows(bad_descriptor(kind), make_card())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, None) for name in ("uri", "sha256", "width", "height", "descriptor", "shard", "row")],
        *[("image_id", ""), ("image_id", "id0"), ("row", -1), ("shard", "")],
        *[("lat", 91.0), ("lat", np.nan), ("lon", -181.0), ("utm_e", np.inf), ("heading_deg", np.nan)],
    ],
)
def test_check_rows_bad_value_raises(name: str, value: object) -> None:
    rows = rows_of(make_card(), IDS[:3])
    with pytest.raises(InvalidBatch):
        check_rows(with_value(rows, name, 1, value), make_card())


def test_check_rows_takes_any_column_order_and_refuses_other_columns() -> None:
    card = make_card()
    rows = rows_of(card, IDS[:3])
    assert check_rows(rows.select(rows.column_names[::-1]), card).schema.equals(row_schema(card))
    with pytest.raises(InvalidBatch, match="uri"):
        check_rows(rows.drop_columns(["uri"]), card)
    with pytest.raises(InvalidBatch, match="extra"):
        check_rows(rows.append_column("extra", pa.array([1, 2, 3])), card)
    with pytest.raises(InvalidBatch, match="type"):
        check_rows(rows_of(make_card(dim=8), IDS[:3]), card)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("tags", tags) for tags in ("", "{", "{}", '"a"', "[1]", '["a", null]', "[" * 100_000)],
        ("tags", '["' + "a" * 70_000 + '"]'),
        ("source", "/" + "a" * 9_000),
        ("code", b"\0"),
    ],
)
def test_optional_values_of_another_form_are_refused(name: str, value: Any) -> None:
    card = make_card().upgraded()
    rows = rows_of(card, IDS[:3])
    kind = pa.binary() if name == "code" else pa.string()
    rows = rows.append_column(name, pa.array([None, value, None], kind))
    with pytest.raises(InvalidBatch, match="type" if name == "code" else name) as caught:
        check_rows(rows, card)
    assert len(str(caught.value)) < 300
    if name != "code":
        with pytest.raises(InvalidBatch, match=name):
            check_amendments(rows.select(["image_id", name]), card)


def test_optional_values_may_be_missing_and_older_formats_have_none() -> None:
    card = make_card().upgraded()
    rows = rows_of(card, IDS[:3])
    given = rows.append_column("tags", pa.array(['["a", "\u00e4"]', "[]", None], pa.string()))
    assert check_rows(rows, card).column_names == [*row_schema(card).names, "source", "tags", "code"]
    assert check_rows(given, card)["tags"].to_pylist() == given["tags"].to_pylist()
    assert row_schema(make_card(), optional=("source", "tags")) == row_schema(make_card())
    with pytest.raises(InvalidBatch, match=r"unknown columns.*tags"):
        check_rows(given, make_card())


def test_check_query_rejects_invalid_descriptors() -> None:
    card = make_card()
    good = descriptor_of("a")[None]
    assert check_query(good.astype(np.float64), card).dtype == np.float32
    for bad in (
        good[0],
        good[:, :8],
        good * 0,
        good * 1.5,
        np.full_like(good, np.nan),
        good.astype(np.int64),
    ):
        with pytest.raises(InvalidBatch):
            check_query(bad, card)

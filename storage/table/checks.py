"""Validation of rows before they are written, and of descriptors before they are searched."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.card import Card
from storage.errors import InvalidBatch
from storage.table.checksums import MAX_BYTES
from storage.table.schema import (
    OPTIONAL_COLUMNS,
    descriptor_matrix,
    row_schema,
    with_optional_columns,
)

__all__ = ["AMENDABLE", "check_amendments", "check_codes", "check_descriptors", "check_query", "check_rows"]

AMENDABLE = (
    "uri",
    "lat",
    "lon",
    "utm_e",
    "utm_n",
    "utm_zone",
    "heading_deg",
    "captured_at",
    "source",
    "tags",
)
_REQUIRED = ("image_id", "uri", "sha256", "width", "height", "descriptor", "shard", "row")
# Rounding each of D values to 11 significant bits moves the norm by at most 2**-11, relative.
_NORM_TOLERANCE = {"float16": 2e-3, "float32": 1e-4}
_LIMITS = {"lat": 90.0, "lon": 180.0}


def check_rows(rows: pa.Table, card: Card) -> pa.Table:
    """Return `rows` with the columns and types of `row_schema(card)` and all optional ones of the format.

    Raises:
        InvalidBatch: a column is missing, unknown or of another type, a required value is missing, a key is
            duplicated, an optional value is too long, or a descriptor has another width, values that are not
            finite, or no unit norm.
    """
    given = [name for name in OPTIONAL_COLUMNS if name in rows.column_names]
    rows = with_optional_columns(_as_schema(rows, row_schema(card, optional=given)), card)
    for name in _REQUIRED:
        if rows[name].null_count:
            raise InvalidBatch(f"column {name} has missing values: give every row one")
    _check_keys(rows)
    _check_coordinates(rows)
    _check_optional(rows)
    _check_places(rows, card)
    if card.code_bits is not None and rows["code"].null_count:
        raise InvalidBatch("column code has missing values: give every row the code of the store's model")
    vectors = descriptor_matrix(rows).astype(np.float32)
    invalid = np.flatnonzero(~_unit(vectors, _NORM_TOLERANCE[card.descriptor_dtype]))
    if len(invalid) or rows["descriptor"].combine_chunks().flatten().null_count:
        first = rows["image_id"][int(invalid[0])].as_py() if len(invalid) else "one with missing values"
        raise InvalidBatch(
            f"{max(1, len(invalid))} descriptors are not finite or not of unit norm (first: {first}): "
            "check the model that made them"
        )
    return rows


def check_amendments(rows: pa.Table, card: Card) -> pa.Table:
    """Return `rows` in the store's types: image_id and any of `AMENDABLE`.

    Raises:
        InvalidBatch: a column cannot be amended or has another type, or a key is missing or duplicated.
    """
    schema = row_schema(card, optional=OPTIONAL_COLUMNS)
    amendable = [name for name in AMENDABLE if name in schema.names]
    unknown = [name for name in rows.column_names if name not in ("image_id", *amendable)]
    if unknown or "image_id" not in rows.column_names:
        raise InvalidBatch(f"columns {rows.column_names}: give image_id and any of {', '.join(amendable)}")
    rows = _as_schema(rows, pa.schema([field for field in schema if field.name in rows.column_names]))
    if "uri" in rows.column_names and rows["uri"].null_count:
        raise InvalidBatch("column uri has missing values: give every row one")
    _check_keys(rows)
    _check_coordinates(rows)
    _check_optional(rows)
    return rows


def check_descriptors(
    image_ids: Sequence[str], descriptors: npt.NDArray[np.floating], card: Card
) -> pa.FixedSizeListArray:
    """Return (N, D) descriptors of these images as the store keeps them.

    Raises:
        InvalidBatch: another shape, a key twice, or values that are not finite or not of unit norm.
    """
    array = np.asarray(descriptors)
    if array.shape != (len(image_ids), card.descriptor_dim) or len(set(image_ids)) != len(image_ids):
        raise InvalidBatch(
            f"descriptors of shape {array.shape} for {len(set(image_ids))} images: give one of width "
            f"{card.descriptor_dim} for each image"
        )
    stored = np.ascontiguousarray(array, dtype=card.descriptor_dtype)
    invalid = np.flatnonzero(~_unit(stored.astype(np.float32), _NORM_TOLERANCE[card.descriptor_dtype]))
    if len(invalid):
        raise InvalidBatch(
            f"{len(invalid)} descriptors are not finite or not of unit norm (first: "
            f"{image_ids[int(invalid[0])]}): check what made them"
        )
    return pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), card.descriptor_dim)


def check_query(descriptors: npt.NDArray[np.float32], card: Card) -> npt.NDArray[np.float32]:
    """Return query descriptors as C-contiguous (B, D) float32 of unit norm.

    Raises:
        InvalidBatch: another width, values that are not finite, or not of unit norm.
    """
    array = np.asarray(descriptors)
    if array.ndim != 2 or array.shape[1] != card.descriptor_dim or array.dtype.kind != "f":
        raise InvalidBatch(
            f"descriptors of shape {array.shape} and type {array.dtype} cannot be searched in a store of "
            f"width {card.descriptor_dim}: extract them with the store's model ({card.model})"
        )
    array = np.ascontiguousarray(array, dtype=np.float32)
    if not _unit(array, _NORM_TOLERANCE["float16"]).all():
        raise InvalidBatch(
            "query descriptors are not finite or not of unit norm: check the model that made them"
        )
    return array


def check_codes(codes: npt.NDArray[np.uint8] | None, count: int, card: Card) -> npt.NDArray[np.uint8]:
    """Return the codes of queries as C-contiguous (B, code_bits / 8) uint8.

    Raises:
        InvalidBatch: there are none, or of another width or type.
    """
    shape = (count, (card.code_bits or 0) // 8)
    array = np.asarray(codes)
    if array.shape != shape or array.dtype != np.uint8:
        raise InvalidBatch(
            f"codes of shape {array.shape} and type {array.dtype} are not {shape} uint8: extract them with "
            f"the store's model ({card.model})"
        )
    return np.ascontiguousarray(array)


def _unit(vectors: npt.NDArray[np.float32], tolerance: float) -> npt.NDArray[np.bool_]:
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        return np.asarray(np.abs(norms - 1.0) <= tolerance)  # False for NaN


def _as_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    if sorted(rows.column_names) != sorted(schema.names):
        missing = sorted(set(schema.names) - set(rows.column_names))
        extra = sorted(set(rows.column_names) - set(schema.names))
        raise InvalidBatch(
            f"missing columns {missing}, unknown columns {extra}: give those of row_schema(card)"
        )
    try:
        return rows.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise InvalidBatch(
            f"a column has another type than in row_schema(card) ({error}): cast it to that type"
        ) from error


def _check_places(rows: pa.Table, card: Card) -> None:
    named = pc.any(pc.not_equal(rows["shard"], "")).as_py()
    if not card.has_features:
        if named or pc.any(pc.not_equal(rows["row"], 0)).as_py():
            raise InvalidBatch("the store has no local features: leave shard empty and row 0")
    elif pc.any(pc.less(rows["row"], 0)).as_py() or pc.any(pc.equal(rows["shard"], "")).as_py():
        raise InvalidBatch(
            "shard is empty or row is negative: use the name from write_shard and the row's number in it"
        )


def _check_keys(rows: pa.Table) -> None:
    keys = rows["image_id"]
    if keys.null_count or pc.any(pc.equal(keys, "")).as_py():
        raise InvalidBatch("image_id is missing or empty: give every row a key")
    if pc.count_distinct(keys).as_py() != len(keys):
        duplicate = next(v["values"] for v in pc.value_counts(keys).to_pylist() if v["counts"] > 1)
        raise InvalidBatch(f"duplicate image_id {duplicate!r} in the batch: keep one of the rows")


def _check_optional(rows: pa.Table) -> None:
    for name, longest in MAX_BYTES.items():
        lengths = pc.binary_length(rows[name]) if name in rows.column_names else None
        if lengths is not None and (pc.max(lengths).as_py() or 0) > longest:
            raise InvalidBatch(f"column {name} has a value of over {longest} bytes: shorten it")
    for text in pc.unique(pc.drop_null(rows["tags"])).to_pylist() if "tags" in rows.column_names else ():
        try:
            tags = json.loads(text)
        except (ValueError, RecursionError):
            tags = None
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise InvalidBatch(f"tags {text[:60]!r} are not a JSON array of strings: give one, or none")


def _check_coordinates(rows: pa.Table) -> None:
    for name in ("lat", "lon", "utm_e", "utm_n", "heading_deg"):
        if name in rows.column_names:
            values = np.asarray(pc.drop_null(rows[name]), dtype=np.float64)
            if not (np.isfinite(values) & (np.abs(values) <= _LIMITS.get(name, np.inf))).all():
                raise InvalidBatch(f"column {name} has a value out of range: leave unknown values empty")

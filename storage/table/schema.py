"""The columns of the table: their types, descriptors as an array, rows as records."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage.card import Card
from storage.errors import CorruptStore
from storage.position import POSITION_COLUMNS, Position
from storage.records import ImageRecord

__all__ = [
    "NUMBER_COLUMNS",
    "TEXT_COLUMNS",
    "check_schema",
    "descriptor_matrix",
    "row_schema",
    "table_schema",
    "to_records",
]

# LanceDB reports concurrent upserts of one key as a conflict only if the table declares its key.
_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
TEXT_COLUMNS = ("image_id", "uri", "sha256", "utm_zone", "shard")
NUMBER_COLUMNS = ("width", "height", "lat", "lon", "utm_e", "utm_n", "heading_deg", "captured_at", "row")


def row_schema(card: Card) -> pa.Schema:
    """Return the columns and types of a batch to commit."""
    element = {"float16": pa.float16(), "float32": pa.float32()}[card.descriptor_dtype]
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("uri", pa.string()),
            pa.field("sha256", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("lat", pa.float64()),
            pa.field("lon", pa.float64()),
            pa.field("utm_e", pa.float64()),
            pa.field("utm_n", pa.float64()),
            pa.field("utm_zone", pa.string()),
            pa.field("heading_deg", pa.float64()),
            pa.field("captured_at", pa.timestamp("us", tz="UTC")),
            pa.field("descriptor", pa.list_(element, card.descriptor_dim)),
            pa.field("shard", pa.string()),
            pa.field("row", pa.int32()),
        ]
    )


def table_schema(card: Card) -> pa.Schema:
    """Return every stored column: those of a batch, the row's checksum, and when it was stored."""
    schema = row_schema(card).append(pa.field("crc32", pa.uint32()))
    return schema.append(pa.field("indexed_at", pa.timestamp("us", tz="UTC")))


def check_schema(schema: pa.Schema, card: Card) -> None:
    """Check that a stored table has the columns of the card, with their types; it may have more.

    Raises:
        CorruptStore: it has not.
    """
    for field in table_schema(card):
        at = schema.get_field_index(field.name)
        if at < 0 or schema.field(at).type != field.type:
            stored = "no" if at < 0 else f"another type of ({schema.field(at).type})"
            raise CorruptStore(
                f"the table has {stored} column {field.name}, which is {field.type} by the card: restore the "
                "store from a backup, or index into a new one"
            )


def descriptor_matrix(rows: pa.Table) -> np.ndarray:
    """Return the descriptors of `rows`: (N, D) in their stored dtype, a view where they are in one chunk."""
    column = rows["descriptor"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no rows: nothing to combine
        column = (
            pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], rows["descriptor"].type)
        )
    width = column.type.list_size
    values = column.values.slice(
        column.offset * width, len(column) * width
    )  # flatten() would skip missing rows
    return np.asarray(values).reshape(len(column), width)


def to_records(rows: pa.Table) -> list[ImageRecord]:
    """Return stored rows as records; other columns are ignored."""
    return [
        ImageRecord(position=Position(**{name: values.pop(name) for name in POSITION_COLUMNS}), **values)
        for values in rows.select([*TEXT_COLUMNS, *NUMBER_COLUMNS]).to_pylist()
    ]

"""The columns of the table: their types, descriptors as an array, rows as records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from storage.card import Card
from storage.errors import CorruptStore
from storage.position import POSITION_COLUMNS, Position
from storage.records import ImageRecord

__all__ = [
    "CARD_KEY",
    "FORMER",
    "NEXT",
    "NUMBER_COLUMNS",
    "OPTIONAL_COLUMNS",
    "STORED_COLUMNS",
    "TEXT_COLUMNS",
    "card_digest",
    "check_schema",
    "code_matrix",
    "descriptor_field",
    "descriptor_matrix",
    "optional_schema",
    "row_schema",
    "table_schema",
    "to_records",
    "with_optional_columns",
]

# LanceDB reports concurrent upserts of one key as a conflict only if the table declares its key.
# The descriptors' column names the card of what made them, so that a version and its card are one manifest.
CARD_KEY = "placeray:card"
_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
TEXT_COLUMNS = ("image_id", "uri", "sha256", "utm_zone", "shard")
NUMBER_COLUMNS = ("width", "height", "lat", "lon", "utm_e", "utm_n", "heading_deg", "captured_at", "row")
OPTIONAL_COLUMNS = ("source", "tags", "code")  # of format 3; a value may be missing
NEXT, FORMER = "_next", "_former"  # ends of the names of columns that are replaced, see commit.replacement
STORED_COLUMNS = (*TEXT_COLUMNS, *NUMBER_COLUMNS, "descriptor", *OPTIONAL_COLUMNS, "crc32", "indexed_at")


def row_schema(card: Card, *, optional: Sequence[str] = ()) -> pa.Schema:
    """Return the columns and types of a batch to commit.

    Args:
        card: The store's card.
        optional: Which of `OPTIONAL_COLUMNS` the batch has; those that the store's format lacks are left out.
    """
    rows = pa.schema(
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
            descriptor_field(card),
            pa.field("shard", pa.string()),
            pa.field("row", pa.int32()),
        ]
    )
    return pa.schema([*rows, *(field for field in optional_schema(card) if field.name in optional)])


def optional_schema(card: Card) -> pa.Schema:
    """Return the columns of format 3 that a batch may leave out; formats 1 and 2 have none."""
    if card.format_version < 3:
        return pa.schema([])
    return pa.schema(
        [
            pa.field("source", pa.string()),
            pa.field("tags", pa.string()),
            pa.field("code", pa.binary(-(-(card.code_bits or card.descriptor_dim) // 8))),
        ]
    )


def table_schema(card: Card) -> pa.Schema:
    """Return every stored column: those of a batch, the row's checksum, and when it was stored."""
    named = card.sha256 if card.format_version >= 3 else None
    rows = [
        descriptor_field(card, named) if field.name == "descriptor" else field for field in row_schema(card)
    ]
    stored = [pa.field("crc32", pa.uint32()), pa.field("indexed_at", pa.timestamp("us", tz="UTC"))]
    return pa.schema([*rows, *stored, *optional_schema(card)])


def descriptor_field(card: Card, named: str | None = None, *, name: str = "descriptor") -> pa.Field:
    """Return the column of the descriptors.

    Args:
        card: What makes them.
        named: The card's digest, for a column of the table.
        name: The column's name.
    """
    element = {"float16": pa.float16(), "float32": pa.float32()}[card.descriptor_dtype]
    metadata = None if named is None else {CARD_KEY: named}
    return pa.field(name, pa.list_(element, card.descriptor_dim), metadata=metadata)


def card_digest(schema: pa.Schema, column: str = "descriptor") -> str | None:
    """Return the digest of the card that a table's column of descriptors names; None: it names none."""
    at = schema.get_field_index(column)
    metadata = (schema.field(at).metadata if at >= 0 else None) or {}
    value = metadata.get(CARD_KEY.encode())
    return None if value is None else value.decode(errors="replace")


def with_optional_columns(rows: pa.Table, card: Card) -> pa.Table:
    """Return `rows` with the optional columns of the card's format, missing where they had none."""
    for field in optional_schema(card):
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows


def check_schema(schema: pa.Schema, card: Card) -> None:
    """Check that a stored table has the columns of the card, with their types; it may have more.

    Versions from before an upgrade to format 3 have no optional columns.

    Raises:
        CorruptStore: it has not.
    """
    for field in table_schema(card):
        at = schema.get_field_index(field.name)
        if at < 0 and field.name in OPTIONAL_COLUMNS:
            continue
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


def code_matrix(rows: pa.Table) -> np.ndarray:
    """Return the codes of `rows`, none of them missing: (N, bits / 8) uint8."""
    width = rows.schema.field("code").type.byte_width
    chunks = []
    for chunk in rows["code"].chunks:
        values = np.frombuffer(chunk.buffers()[1] or b"", np.uint8)
        chunks.append(values[chunk.offset * width : (chunk.offset + len(chunk)) * width])
    return np.concatenate(chunks or [np.empty(0, np.uint8)]).reshape(-1, width)


def to_records(rows: pa.Table) -> list[ImageRecord]:
    """Return stored rows as records; other columns are ignored."""
    names = [*TEXT_COLUMNS, *NUMBER_COLUMNS]
    names += [name for name in ("source", "tags") if name in rows.column_names]
    columns = {name: rows[name].to_pylist() for name in names}
    positions = map(Position, *(columns.pop(name) for name in POSITION_COLUMNS))
    # Whole columns take a third of the time of a dict per row.
    rest = tuple(columns)
    return [
        ImageRecord(position=position, **dict(zip(rest, values, strict=True)))
        for position, *values in zip(positions, *columns.values(), strict=True)
    ]

"""Which source each row was indexed from, in stores of every format."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from storage.table.open_table import Table

__all__ = ["is_of_source", "rows_of_source", "with_sources"]


def with_sources(rows: pa.Table) -> pa.Table:
    """Return `rows` with the columns source and tags; a missing source is the folder of the uri."""
    for name in ("source", "tags"):
        if name not in rows.column_names:
            rows = rows.append_column(pa.field(name, pa.string()), pa.nulls(len(rows), pa.string()))
    if not rows["source"].null_count:
        return rows
    folders = pc.replace_substring_regex(rows["uri"], "/[^/]*$", "")
    at = rows.schema.get_field_index("source")
    return rows.set_column(at, rows.schema.field(at), pc.coalesce(rows["source"], folders))


def rows_of_source(table: Table, source: str) -> list[str]:
    """Return the keys of the rows of a source, see `Store.rows_of_source`.

    Raises:
        CorruptStore: a data file cannot be read.
    """
    columns = [name for name in ("image_id", "uri", "source") if name in table.schema.names]
    keys: list[str] = []
    for batch in table.scan(columns):
        keys += batch["image_id"].filter(is_of_source(batch, source)).to_pylist()
    return keys


def is_of_source(rows: pa.Table, source: str) -> pa.ChunkedArray:
    """Return which rows, as they are stored, were indexed from a source, see `Store.rows_of_source`."""
    own = pc.starts_with(rows["uri"], source.rstrip("/") + "/")
    return pc.coalesce(pc.equal(rows["source"], source), own) if "source" in rows.column_names else own

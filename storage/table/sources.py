"""Which source each row was indexed from, in stores of every format."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from storage.table.open_table import Table

__all__ = ["rows_of_source", "with_sources"]


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
    below = source.rstrip("/") + "/"
    columns = [name for name in ("image_id", "uri", "source") if name in table.schema.names]
    keys: list[str] = []
    for batch in table.scan(columns):
        own = pc.starts_with(batch["uri"], below)
        if "source" in columns:
            own = pc.coalesce(pc.equal(batch["source"], source), own)
        keys += batch["image_id"].filter(own).to_pylist()
    return keys

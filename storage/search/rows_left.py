"""Which stored rows a filter leaves, in memory or in a table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.search.row_filter import RowFilter
from storage.table.open_table import Table
from storage.table.schema import STORED_COLUMNS
from storage.table.sources import with_sources

__all__ = ["columns_for", "plain_texts", "rows_left", "scanned_rows_left"]


def columns_for(within: RowFilter, rows: pa.Table) -> pa.Table:
    """Return the columns that a filter reads, plain, with missing values where an older store has none.

    Args:
        within: The filter.
        rows: Stored rows. Texts may be encoded by dictionary.

    Raises:
        ValueError: the filter reads what is no stored column.
    """
    unknown = [name for name in within.columns if name not in STORED_COLUMNS]
    if unknown:
        raise ValueError(f"{unknown} are not columns of stored rows: name those of storage.table.schema")
    needed = {*within.columns, *(("uri",) if "source" in within.columns else ())}
    rows = rows.select([name for name in rows.column_names if name in needed])
    rows = plain_texts(rows)
    if "tags" in needed and "tags" not in rows.column_names:
        rows = rows.append_column("tags", pa.nulls(len(rows), pa.string()))
    if "source" in needed:
        rows = with_sources(rows)
    return rows.select(list(within.columns))


def rows_left(within: RowFilter, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return (N,) bool: which stored rows a filter leaves; arguments and errors as of `columns_for`."""
    if not len(rows):
        return np.zeros(0, bool)
    if not within.columns:  # a table without columns has no length
        return np.asarray(within.mask(rows), bool)
    return np.asarray(within.mask(columns_for(within, rows)), bool)


def scanned_rows_left(within: RowFilter, table: Table) -> npt.NDArray[np.bool_]:
    """Return (N,) bool: which rows of a version a filter leaves, in the table's order.

    Raises:
        CorruptStore: a data file cannot be read.
        ValueError: the filter reads what is no stored column.
    """
    read = [name for name in dict.fromkeys(("uri", *within.columns)) if name in table.schema.names]
    parts = [rows_left(within, batch) for batch in table.scan(read)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def plain_texts(rows: pa.Table) -> pa.Table:
    """Return `rows` with texts instead of numbers of a dictionary."""
    for at, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(at, field.name, rows.column(at).cast(field.type.value_type))
    return rows

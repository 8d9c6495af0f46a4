"""How errors travel from workers to the driver: as columns of the rows.

An exception in a worker would stop the whole Ray Data job, and Ray keeps only its text. So an image that
cannot be used stays in the table with its reason in `rejected`, and an error that must stop the job stands in
the column `failure`, from which the driver raises it again.
"""

from __future__ import annotations

import json

import pyarrow as pa

from storage.errors import PlacerayError, error_from_dict

__all__ = ["raise_failure", "reject_rows", "with_failure"]


def with_failure(rows: pa.Table, error: PlacerayError) -> pa.Table:
    """Return the rows with an error that must stop the job in the column `failure`."""
    text = pa.array([json.dumps(error.to_dict())] * rows.num_rows, pa.string())
    return rows.set_column(rows.column_names.index("failure"), "failure", text)


def raise_failure(rows: pa.Table) -> None:
    """Raise the first error in the column `failure`, if there is one.

    Raises:
        PlacerayError: as reported by the worker.
    """
    failures = rows["failure"].drop_null()
    if len(failures):
        raise error_from_dict(json.loads(failures[0].as_py()))


def reject_rows(rows: pa.Table, messages: dict[int, str], *, reason: str) -> pa.Table:
    """Return the table with some rows marked as rejected.

    Args:
        rows: With the columns `rejected` and `message`.
        messages: Message by row number.
        reason: Machine-readable, the same for all of them.
    """
    if not messages:
        return rows
    for name, texts in (("rejected", dict.fromkeys(messages, reason)), ("message", messages)):
        values = rows[name].to_pylist()
        for row, text in texts.items():
            values[row] = text
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
    return rows

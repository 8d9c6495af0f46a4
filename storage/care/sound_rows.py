"""The rows of a damaged table that a repair keeps."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from storage.card import Card
from storage.table.checksums import intact_rows
from storage.table.open_table import Table
from storage.table.salvage import readable_batches

__all__ = ["sound_rows"]


def sound_rows(table: Table, card: Card, bad_ids: Collection[str | None]) -> pa.Table:
    """Return the intact rows whose key is not in `bad_ids`; of equal keys the latest."""
    batches = []
    for batch, _ in readable_batches(table):
        batch = intact_rows(batch, card)
        keys = batch["image_id"].to_pylist()
        batches.append(batch.filter(pa.array([key not in bad_ids for key in keys], pa.bool_())))
    rows = pa.concat_tables(batches)
    latest: dict[str, int] = {}
    stored_at = rows["indexed_at"].to_pylist()
    for i, key in enumerate(rows["image_id"].to_pylist()):
        if key not in latest or stored_at[i] >= stored_at[latest[key]]:
            latest[key] = i
    return rows.take(pa.array(sorted(latest.values()), pa.int64()))

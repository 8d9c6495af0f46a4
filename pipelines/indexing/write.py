"""Third stage of an index run: write the encoded local features as durable shards."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.indexing.failures import with_failure
from pipelines.indexing.trace import span
from storage.card import Card
from storage.errors import NotWritable, OutOfSpace
from storage.features.shards import write_shard
from storage.objects.errors import StorageForbidden, StorageThrottled, StorageUnreachable
from storage.table.schema import row_schema

__all__ = ["write"]


def write(batch: pa.Table, *, store_uri: str, card: str, trace: str | None = None) -> pa.Table:
    """Write the encoded features of a batch as one durable shard and drop them from the table.

    Args:
        batch: Extracted rows.
        store_uri: The store.
        card: Card of the store as JSON.
        trace: File for timings, see `pipelines.indexing.trace`.

    Returns:
        The rows with `shard` and `row`, both null where nothing was extracted. If the disk is full, every row
        reports that in `failure`.
    """
    with span(trace, "write", batch.num_rows) as line:
        table = _write_shard(batch, store_uri, Card.from_json(card))
        line["bytes"] = table.nbytes
    return table


def _write_shard(batch: pa.Table, store_uri: str, card: Card) -> pa.Table:
    extracted = np.flatnonzero(pc.is_valid(batch["features"]).to_numpy(zero_copy_only=False))
    shards: list[str | None] = [None] * batch.num_rows
    rows: list[int | None] = [None] * batch.num_rows
    if not card.has_features:
        for position in extracted.tolist():
            shards[position], rows[position] = "", 0
    elif len(extracted):
        selected = batch.select(["image_id", "features"]).take(pa.array(extracted))
        try:
            shard = write_shard(store_uri, selected["image_id"].to_pylist(), _joined(selected["features"]))
            for row, position in enumerate(extracted.tolist()):
                shards[position], rows[position] = shard, row
        except (OutOfSpace, NotWritable, StorageForbidden, StorageThrottled, StorageUnreachable) as error:
            batch = with_failure(batch, error)
    types = row_schema(card)
    table = batch.drop_columns(["features"])
    table = table.append_column("shard", pa.array(shards, types.field("shard").type))
    return table.append_column("row", pa.array(rows, types.field("row").type))


def _joined(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return a column of equally long byte strings without nulls as (B, bytes), with one copy or none."""
    joined = column.combine_chunks()
    _, offsets, values = joined.buffers()
    ends = np.frombuffer(offsets, np.int32)[joined.offset : joined.offset + len(joined) + 1]
    return np.frombuffer(values, np.uint8)[ends[0] : ends[-1]].reshape(len(joined), -1)

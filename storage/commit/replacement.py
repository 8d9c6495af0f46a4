"""Replacement of all descriptors by those of another card, as one new version.

The new descriptors are collected in columns of their own, `descriptor_next` and the checksums that belong to
them, while the old ones stay in use. One change of the table's schema then switches both, and the version is
acknowledged with its card. LanceDB does this by merge_insert of some columns, and by renaming and dropping
columns; nothing is overwritten. What a crash leaves is continued, or dropped by the next commit of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.artifacts import read_artifact
from storage.card import FORMAT_VERSION, Card
from storage.card_files import write_card
from storage.commit.ledger import Committed
from storage.commit.writer import Writer
from storage.durable import explain_write_errors
from storage.errors import CorruptStore, InvalidBatch, repair_command
from storage.fault_points import fault_point
from storage.table.checks import check_descriptors
from storage.table.checksums import checksums_match, row_crc32
from storage.table.open_table import Table, open_table
from storage.table.schema import (
    FORMER,
    NEXT,
    card_digest,
    descriptor_field,
    optional_schema,
    with_optional_columns,
)

__all__ = ["replace_descriptors", "rows_to_describe"]

_REPLACED = ("descriptor", "crc32", "code")
_BATCH_ROWS = 8192


def rows_to_describe(writer: Writer, card: Card) -> list[str]:
    """Return the keys of the rows whose descriptors `replace_descriptors` still needs for a card."""
    if writer.card.sha256 == card.sha256:
        return []
    if _is_begun(writer.table, card):
        return writer.table.missing(f"descriptor{NEXT}")
    return [key for batch in writer.table.scan(["image_id"]) for key in batch["image_id"].to_pylist()]


def replace_descriptors(
    writer: Writer, card: Card, batches: Iterable[tuple[Sequence[str], npt.NDArray[np.float32]]]
) -> Committed:
    """Replace the descriptors of all rows; arguments and errors as of `Store.replace_descriptors`."""
    writer.card.require_same_features(card)
    if card.format_version != FORMAT_VERSION:
        raise InvalidBatch(f"the card has format {card.format_version}: take that of Card.stored_as")
    for digest in card.artifacts:
        read_artifact(writer.folder, digest)
    if writer.card.sha256 == card.sha256:
        return writer.committed
    writer.upgrade()
    write_card(writer.folder, card)
    _begin(writer, card)
    before = open_table(writer.folder, version=writer.table.version)
    keys = pa.chunked_array(
        [batch["image_id"].combine_chunks() for batch in before.scan(["image_id"])], pa.string()
    )
    for image_ids, descriptors in _bounded(batches):
        rows = before.take(_offsets(image_ids, keys))
        rows = rows.take(pc.index_in(pa.array(image_ids, pa.string()), value_set=rows["image_id"]))
        if not checksums_match(rows, writer.card).all():  # a new checksum would hide that
            raise CorruptStore(f"{writer.folder} has damaged rows: {repair_command(writer.folder)}")
        rows = _described(rows, check_descriptors(image_ids, descriptors, card), card, before.schema)
        writer.check_lease()
        with explain_write_errors(writer.folder, rows.nbytes):
            writer.table.update(rows)
        fault_point("after_descriptors")
    missing = writer.table.missing(f"descriptor{NEXT}")
    if missing:
        raise InvalidBatch(
            f"{len(missing)} rows have no new descriptor (first: {missing[0]}): call replace_descriptors "
            "again with theirs; those given are kept"
        )
    return writer.change(lambda: _switch(writer.table), did="replaced all descriptors")


def _is_begun(table: Table, card: Card) -> bool:
    return card_digest(table.schema, f"descriptor{NEXT}") == card.sha256


def _begin(writer: Writer, card: Card) -> None:
    """Add the columns for the new descriptors, unless an interrupted replacement by this card has done so."""
    if _is_begun(writer.table, card):
        return
    writer.check_lease()
    code = optional_schema(card).field("code")
    with explain_write_errors(writer.folder, 1 << 16):
        writer.table.drop_leftovers()
        fields = [
            descriptor_field(card, card.sha256, name=f"descriptor{NEXT}"),
            pa.field(f"crc32{NEXT}", pa.uint32()),
            pa.field(f"code{NEXT}", code.type),
        ]
        writer.table.add_columns(pa.schema(fields))
    fault_point("after_begin")


def _bounded(
    batches: Iterable[tuple[Sequence[str], npt.NDArray[np.float32]]],
) -> Iterator[tuple[Sequence[str], npt.NDArray[np.float32]]]:
    for image_ids, descriptors in batches:
        for at in range(0, len(image_ids), _BATCH_ROWS):
            yield image_ids[at : at + _BATCH_ROWS], descriptors[at : at + _BATCH_ROWS]


def _offsets(image_ids: Sequence[str], keys: pa.ChunkedArray) -> list[int]:
    offsets = pc.index_in(pa.array(image_ids, pa.string()), value_set=keys)
    if offsets.null_count:
        unknown = image_ids[offsets.is_null().to_pylist().index(True)]
        raise InvalidBatch(f"{unknown} is not in the store: give descriptors of its rows only")
    return list(offsets.to_pylist())


def _described(rows: pa.Table, descriptors: pa.Array, card: Card, schema: pa.Schema) -> pa.Table:
    """Return the new descriptors of some rows with the checksums that the rows then have."""
    rows = rows.set_column(rows.schema.get_field_index("descriptor"), descriptor_field(card), descriptors)
    rows = with_optional_columns(rows.drop_columns("code"), card)  # the codes of the former descriptors
    columns = [rows["image_id"], descriptors, pa.array(row_crc32(rows, card.aggregation_sha256))]
    fields = [schema.field(name) for name in ("image_id", f"descriptor{NEXT}", f"crc32{NEXT}")]
    return pa.table(columns, schema=pa.schema(fields))


def _switch(table: Table) -> None:
    former = {name: f"{name}{FORMER}" for name in _REPLACED}
    table.rename_columns(former | {f"{name}{NEXT}": name for name in _REPLACED})
    fault_point("after_switch")
    table.drop_columns(list(former.values()))

"""The LanceDB table of records and descriptors; nothing else in placeray knows LanceDB."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import HnswSq, IvfRq

from storage.card import Card
from storage.errors import CorruptStore
from storage.position import POSITION_COLUMNS, Position
from storage.records import ImageRecord

__all__ = [
    "TABLE_FOLDER",
    "VectorTable",
    "add_checksums",
    "descriptor_matrix",
    "good_rows",
    "intact",
    "manifest_name",
    "row_crc32",
    "row_schema",
    "table_schema",
    "to_records",
]

TABLE_FOLDER = "records.lance"

# Concurrent upserts of one key conflict only when the table knows its key (design promise 4).
_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
_TEXT = ("image_id", "uri", "sha256", "utm_zone", "shard")
_NUMBERS = ("width", "height", "lat", "lon", "utm_e", "utm_n", "heading_deg", "captured_at", "row")
_RECORD_COLUMNS = (*_TEXT, *_NUMBERS)
_SCAN_ROWS = 8192
_LIST_ROWS = 8192  # of LanceDB's index; its own default


def row_schema(card: Card) -> pa.Schema:
    """Return the columns that a writer hands to the store, with their types."""
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
    """Return every stored column: what the writer hands over, its checksum, and when it was stored."""
    schema = row_schema(card).append(pa.field("crc32", pa.uint32()))
    return schema.append(pa.field("indexed_at", pa.timestamp("us", tz="UTC")))


def descriptor_matrix(rows: pa.Table) -> np.ndarray:
    """Return the descriptors of `rows`: (N, D) in their stored dtype, a view where one chunk holds them."""
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


def row_crc32(rows: pa.Table) -> npt.NDArray[np.uint32]:
    """Return one CRC-32 a row over everything stored of it but `crc32` and `indexed_at`.

    The canonical encoding of a row, little-endian: a bit set for each missing value, the byte length of each
    text, each number in eight bytes (zero when missing), the descriptor's bytes, then the texts.

    Returns:
        (N,) uint32.
    """
    texts = [pc.fill_null(rows[name].cast(pa.binary()), b"") for name in _TEXT]
    head = np.zeros((len(rows), 1 + len(_TEXT) + len(_NUMBERS)), dtype="<i8")
    for bit, name in enumerate((*_RECORD_COLUMNS, "descriptor")):
        head[:, 0] |= rows[name].is_null().to_numpy().astype(np.int64) << bit
    for at, text in enumerate(texts, start=1):
        head[:, at] = pc.binary_length(text).to_numpy()
    for at, name in enumerate(_NUMBERS, start=1 + len(_TEXT)):
        column = rows[name]
        if pa.types.is_floating(column.type):
            head[:, at] = pc.fill_null(column, 0.0).to_numpy().astype("<f8", copy=False).view("<i8")
        else:
            head[:, at] = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    vectors = np.ascontiguousarray(descriptor_matrix(rows)).view(np.uint8)
    packed = np.concatenate([head.view(np.uint8).reshape(len(rows), 8 * head.shape[1]), vectors], axis=1)
    width, data = packed.shape[1], packed.reshape(-1).data
    joined = pc.binary_join_element_wise(*texts, b"").to_pylist()
    sums = [zlib.crc32(text, zlib.crc32(data[i * width : (i + 1) * width])) for i, text in enumerate(joined)]
    return np.array(sums, dtype=np.uint32)


def add_checksums(rows: pa.Table) -> pa.Table:
    """Return `rows` in the stored form: with `crc32` and with `indexed_at` now."""
    now = pa.array([datetime.now(UTC)] * len(rows), pa.timestamp("us", tz="UTC"))
    rows = rows.append_column(pa.field("crc32", pa.uint32()), pa.array(row_crc32(rows)))
    return rows.append_column(pa.field("indexed_at", pa.timestamp("us", tz="UTC")), now)


def intact(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return (N,) bool: whether each stored row's checksum holds."""
    recorded = rows["crc32"]
    return np.asarray((row_crc32(rows) == recorded.fill_null(0).to_numpy()) & recorded.is_valid().to_numpy())


def good_rows(rows: pa.Table) -> pa.Table:
    """Return the stored rows whose checksum holds."""
    matches = intact(rows)
    return rows if matches.all() else rows.filter(pa.array(matches))


def to_records(rows: pa.Table) -> list[ImageRecord]:
    """Return stored rows as records; other columns are ignored."""
    return [
        ImageRecord(position=Position(**{name: values.pop(name) for name in POSITION_COLUMNS}), **values)
        for values in rows.select(_RECORD_COLUMNS).to_pylist()
    ]


def manifest_name(version: int) -> str:
    """Return the file name of a version's manifest; LanceDB counts down so that the newest sorts first."""
    return f"{2**64 - 1 - version:020d}.manifest"


class VectorTable:
    """One version of the table, or, opened without a version, its head for writing.

    Attributes:
        folder: The store's folder.
    """

    def __init__(self, folder: Path, table: Any) -> None:
        """Wrap an open table; use `create` or `open`."""
        self.folder = folder
        self._table = table

    @classmethod
    def create(cls, folder: Path, card: Card) -> VectorTable:
        """Make the empty table, or open the one already there."""
        database = lancedb.connect(os.fspath(folder))
        return cls(folder, database.create_table("records", schema=table_schema(card), exist_ok=True))

    @classmethod
    def open(cls, folder: Path, *, version: int | None = None) -> VectorTable:
        """Open the table, read-only at `version` or at its head.

        Raises:
            CorruptStore: there is no such version, or a manifest cannot be read.
        """
        try:
            return cls(folder, lancedb.connect(os.fspath(folder)).open_table("records", version=version))
        except (RuntimeError, ValueError, OSError) as error:
            wanted = "the newest version" if version is None else f"version {version}"
            raise CorruptStore(
                f"{folder / TABLE_FOLDER}: {wanted} cannot be opened ({error}): "
                f"run placeray verify --store {folder} --repair"
            ) from error

    @property
    def version(self) -> int:
        """The version in view."""
        return int(self._table.version)

    @property
    def schema(self) -> pa.Schema:
        """The stored columns."""
        return self._table.schema

    @property
    def has_index(self) -> bool:
        """Whether this version carries LanceDB's own index over the descriptors."""
        return any("descriptor" in index.columns for index in self._table.list_indices())

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._table.count_rows())

    def versions(self) -> list[tuple[int, datetime]]:
        """Return every version still there with when it was made, oldest first."""
        found = [(int(v["version"]), v["timestamp"].astimezone(UTC)) for v in self._table.list_versions()]
        return sorted(found)

    def scan(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows in pieces, in the table's order.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        query = self._table.search()
        if columns is not None:
            query = query.select(list(columns))
        with _readable(self.folder):
            for batch in query.to_batches(_SCAN_ROWS):
                yield pa.Table.from_batches([batch])

    def take(self, offsets: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows at these places in the table's order.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        query = self._table.take_offsets(list(offsets))
        with _readable(self.folder):
            return (query if columns is None else query.select(list(columns))).to_arrow()

    def find(self, column: str, values: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows whose text `column` is one of `values`, in the table's order.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        tables = []
        for start in range(0, max(1, len(values)), 1000):
            query = self._table.search().where(_one_of(column, values[start : start + 1000]))
            with _readable(self.folder):
                tables.append((query if columns is None else query.select(list(columns))).to_arrow())
        return pa.concat_tables(tables)

    def append(self, rows: pa.Table) -> None:
        """Add rows whose keys are known to be absent: one version."""
        self._table.add(rows)

    def upsert(self, rows: pa.Table) -> None:
        """Replace rows of the same key and add the others: one version."""
        merge = self._table.merge_insert("image_id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(rows)

    def delete(self, image_ids: Sequence[str]) -> None:
        """Remove rows by key: one version for each thousand."""
        for start in range(0, len(image_ids), 1000):
            self._table.delete(_one_of("image_id", image_ids[start : start + 1000]))

    def replace_all(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Write a version that holds exactly these rows; earlier versions stay."""
        database = lancedb.connect(os.fspath(self.folder))
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        self._table = database.create_table("records", reader, schema=schema, mode="overwrite")

    def build_index(self) -> None:
        """Build LanceDB's own index over the descriptors (cosine): IVF_RQ, codes of two bits a dimension.

        Where the dimensions are not whole bytes of bits, which it needs: IVF_HNSW_SQ.
        """
        config: HnswSq | IvfRq = HnswSq(distance_type="cosine")
        if self.schema.field("descriptor").type.list_size % 8 == 0:
            config = IvfRq(distance_type="cosine", num_bits=2, target_partition_size=_LIST_ROWS)
        self._table.create_index("descriptor", config=config, replace=True)

    def nearest(self, descriptor: npt.NDArray[np.float32], k: int, *, rows: int) -> pa.Table:
        """Return about the k nearest rows by cosine, through the index where this version has one.

        Args:
            descriptor: (D,) float32, unit L2 norm.
            k: How many rows.
            rows: How many the table has: of an index, every list is read up to two million rows, then half.
        """
        query = self._table.search(descriptor, vector_column_name="descriptor").distance_type("cosine")
        query = query.nprobes(max(256, rows // (2 * _LIST_ROWS))).ef(max(64, 4 * k))
        with _readable(self.folder):
            return query.refine_factor(4).limit(k).to_arrow()

    def optimize(self, *, older_than_s: float) -> None:
        """Merge small files, bring the index up to date, and drop versions older than `older_than_s`."""
        self._table.optimize(cleanup_older_than=timedelta(seconds=older_than_s))


def _one_of(column: str, values: Sequence[str]) -> str:
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})" if values else "false"


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Name what a failed read means."""
    try:
        yield
    except BaseException as error:
        # LanceDB's native code panics on some damage, with an exception that is no Exception.
        damage = isinstance(error, RuntimeError | ValueError | OSError | pa.ArrowException)
        if not damage and type(error).__name__ != "PanicException":
            raise
        raise CorruptStore(
            f"{folder / TABLE_FOLDER} cannot be read ({error}): run placeray verify --store {folder} --repair"
        ) from error

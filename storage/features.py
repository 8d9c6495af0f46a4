"""Shards of local features: one Parquet file a batch, one row group an image, every page checksummed."""

from __future__ import annotations

import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32

from storage.card import Card
from storage.durable import fault_point, flush, local_folder, name_full_disk
from storage.encodings import open_codec
from storage.errors import InvalidBatch
from storage.records import ImageRecord

__all__ = [
    "FEATURES_FOLDER",
    "FeatureReader",
    "file_crc32",
    "shard_intact",
    "shard_path",
    "write_encoded_shard",
    "write_shard",
]

FEATURES_FOLDER = "features"
_KNOWN_SHARDS = 4096
_MAX_HEADERS_BYTES = 1 << 20
_THREADS = min(8, os.cpu_count() or 1)
_THREAD_BYTES = 2 << 20  # less than this is not worth a thread
_FILES_AT_ONCE = 64
_CHUNK_BYTES = 1 << 22
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)  # Linux
_NOT_NOW = "the row is not in memory"


def shard_path(folder: Path, shard: str) -> Path:
    """Return where a shard lies in the store at `folder`."""
    return folder / FEATURES_FOLDER / f"{shard}.parquet"


def file_crc32(path: Path) -> str:
    """Return the CRC-32 of a whole file as eight hex digits."""
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = crc32(chunk, crc)
    return f"{crc:08x}"


def shard_intact(folder: Path, shard: str) -> bool:
    """Return whether every byte of a shard is as it was written."""
    try:
        return shard.endswith(f"-{file_crc32(shard_path(folder, shard))}")
    except OSError:
        return False


def write_shard(store_uri: str, image_ids: Sequence[str], features: np.ndarray) -> str:
    """Encode the local features of a batch as the store's card says, and write them.

    Args:
        store_uri: Folder of the store. Without a card in it the features are kept as they are.
        image_ids: B keys, in the order of `features`.
        features: (B, H, W, C) float16.

    Returns:
        As `write_encoded_shard`.

    Raises:
        InvalidBatch: the arguments do not fit together or the card, or a feature is not finite.
        OutOfSpace: the disk is full; nothing is left of the shard.
        CorruptStore: the card or the projection that it names cannot be read.
    """
    if (
        features.ndim != 4
        or features.dtype != np.float16
        or len(features) != len(image_ids)
        or not len(features)
    ):
        raise InvalidBatch(
            f"{len(image_ids)} image ids with features of shape {features.shape} and type {features.dtype}: "
            "give one (H, W, C) float16 grid an image"
        )
    folder = local_folder(store_uri)
    try:
        card = Card.from_json((folder / "card.json").read_text(errors="replace"))
    except FileNotFoundError:
        card = None
    if card is not None and card.feature_encoding != "float16":
        return write_encoded_shard(store_uri, image_ids, open_codec(folder, card).encode(features))
    if not np.isfinite(features).all():
        raise InvalidBatch("local features hold NaN or infinity: check the model that made them")
    flat = np.ascontiguousarray(features).reshape(len(features), -1)
    return write_encoded_shard(store_uri, image_ids, flat.view(np.uint8))


def write_encoded_shard(store_uri: str, image_ids: Sequence[str], rows: np.ndarray) -> str:
    """Write the encoded local features of a batch so that they survive a power cut.

    The file appears under its name only when it is whole and on disk. The name ends in the CRC-32 of the
    file, so that damage to any byte of it can be found, also outside the checksummed pages.

    Args:
        store_uri: Folder of the store.
        image_ids: B keys, in the order of `rows`.
        rows: (B, row_bytes) uint8, as the store's codec makes them.

    Returns:
        The shard's name; its rows are numbered in the order of `image_ids`.

    Raises:
        InvalidBatch: another number of ids than of rows.
        OutOfSpace: the disk is full; nothing is left of the shard.
    """
    if len(rows) != len(image_ids) or not len(rows):
        raise InvalidBatch(f"{len(image_ids)} image ids with {len(rows)} rows: give one row an image")
    folder = local_folder(store_uri) / FEATURES_FOLDER
    name = uuid.uuid4().hex
    temporary = folder / f".{name}.tmp"
    flat = np.ascontiguousarray(rows).reshape(-1)
    width = flat.size // len(rows)
    table = pa.table(
        {
            "image_id": pa.array(image_ids, pa.string()),
            "features": pa.Array.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(flat)]),
        },
        # Without missing values a page is nothing but the values, which `_read_row` relies on.
        schema=pa.schema(
            [
                pa.field("image_id", pa.string(), nullable=False),
                pa.field("features", pa.binary(width), nullable=False),
            ]
        ),
    )
    try:
        with name_full_disk(shard_path(folder.parent, name), flat.size):
            pq.write_table(
                table,
                temporary,
                row_group_size=1,
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
                store_schema=False,
            )
            flush(temporary)
            name = f"{name}-{file_crc32(temporary)}"
            fault_point("before_shard")
            os.rename(temporary, shard_path(folder.parent, name))
            flush(folder)
    finally:
        temporary.unlink(missing_ok=True)
    fault_point("after_shard")
    return name


class FeatureReader:
    """Reads single images out of shards; safe to share between threads.

    Remembers where each row of a shard lies, because parsing a footer costs more than reading a row. The
    bytes of a row go from the file straight into the caller's array and are checked there against the page's
    CRC-32. Files are not memory-mapped: a map of a file cut short kills the process instead of raising.

    Attributes:
        codec: Decodes what `read` and `fetch_encoded` return.
    """

    def __init__(self, folder: Path, card: Card, *, known_shards: int = _KNOWN_SHARDS) -> None:
        """Read the store at `folder`, remembering the row positions of up to `known_shards` files.

        Raises:
            CorruptStore: the projection that the card names cannot be read.
        """
        self.codec = open_codec(folder, card)
        self._folder = folder
        self._known_shards = known_shards
        self._positions: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records.

        Returns:
            features: as `FeatureCodec.decode` returns them; zeros where they could not be read.
            ok: (K,) bool; False where the row is missing, damaged, or another image's.
        """
        rows, ok = self.fetch_encoded(records)
        return self.codec.decode(rows), ok

    def fetch_encoded(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records as they are stored.

        Returns:
            rows: (K, row_bytes) uint8; zeros where they could not be read.
            ok: (K,) bool; False where the row is missing, damaged, or another image's.
        """
        rows = np.empty((len(records), self.codec.row_bytes), dtype=np.uint8)
        ok = np.zeros(len(records), dtype=bool)
        # Shard by shard and forward in each, which is the order of the disk.
        order = sorted(range(len(records)), key=lambda i: (records[i].shard, records[i].row))

        def read(some: list[int]) -> None:
            for at in range(0, len(some), _FILES_AT_ONCE):
                for i, reason in self._read_rows(records, some[at : at + _FILES_AT_ONCE], rows):
                    ok[i] = reason is None
                    if reason is not None:
                        rows[i] = 0

        workers = min(_THREADS, rows.nbytes // _THREAD_BYTES)
        if workers < 2:
            read(order)
        else:  # reading and checking large rows leaves the interpreter free
            share = -(-len(order) // workers)
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(read, [order[i : i + share] for i in range(0, len(order), share)]))
        return rows, ok

    def _read_rows(
        self, records: Sequence[ImageRecord], some: list[int], rows: np.ndarray
    ) -> list[tuple[int, str | None]]:
        """Read some records into their rows; return each with why it is unusable or None.

        Each file is opened once. What the system has in memory is read at once; of all else the disk hears
        before the first row is waited for.
        """
        outcomes: list[tuple[int, str | None]] = []
        files: dict[str, int] = {}
        awaited: list[tuple[int, _Place]] = []
        try:
            for i in some:
                record = records[i]
                place = self._find(record.shard, record.row, rows[i].nbytes, files)
                if isinstance(place, str):
                    outcomes.append((i, place))
                    continue
                outcome = _read_row(place, records[i].image_id, rows[i], _NO_WAIT)
                if outcome != _NOT_NOW:
                    outcomes.append((i, outcome))
                else:
                    os.posix_fadvise(place.fd, place.key_at, place.length, os.POSIX_FADV_WILLNEED)
                    awaited.append((i, place))
            outcomes += [(i, _read_row(place, records[i].image_id, rows[i])) for i, place in awaited]
        finally:
            for fd in files.values():
                os.close(fd)
        return outcomes

    def read(self, shard: str, row: int, image_id: str, out: np.ndarray) -> str | None:
        """Read one row into `out` and return None, or return why it cannot be used.

        Args:
            shard: Name of the shard.
            row: Row in it.
            image_id: Whose features they must be.
            out: C-contiguous, `codec.row_bytes` long, written.
        """
        files: dict[str, int] = {}
        try:
            place = self._find(shard, row, out.nbytes, files)
            return place if isinstance(place, str) else _read_row(place, image_id, out)
        finally:
            for fd in files.values():
                os.close(fd)

    def _find(self, shard: str, row: int, size: int, files: dict[str, int]) -> _Place | str:
        """Return where a row of `size` bytes lies, or why it cannot; what is opened is added to `files`."""
        try:
            positions = self._row_positions(shard)
            if not 0 <= row < len(positions):
                return f"the shard has {len(positions)} rows, not row {row}"
            key_at, value_at, value_end = positions[row].tolist()
            if value_end - value_at < size:
                return f"the row has fewer than {size} bytes"
            if (
                not 0 <= key_at < value_at < value_end - size
                or value_end - size - key_at > _MAX_HEADERS_BYTES
            ):
                return "the footer is damaged"
            if shard not in files:
                files[shard] = os.open(shard_path(self._folder, shard), os.O_RDONLY | os.O_CLOEXEC)
            return _Place(files[shard], key_at, value_at, value_end - key_at)
        except FileNotFoundError:
            return "the shard is missing"
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
            return f"the row cannot be read ({error})"

    def rows(self, shard: str) -> int:
        """Return how many rows a shard has; 0 where its footer cannot be read."""
        try:
            return len(self._row_positions(shard))
        except (OSError, ValueError, OverflowError, pa.ArrowException):
            return 0

    def _row_positions(self, shard: str) -> np.ndarray:
        """Return (rows, 3) int64: where each row's key and features begin, and where its features end."""
        with self._lock:
            if shard in self._positions:
                self._positions.move_to_end(shard)
                return self._positions[shard]
        footer = pq.read_metadata(shard_path(self._folder, shard))
        positions = np.empty((footer.num_row_groups, 3), dtype=np.int64)
        for row in range(footer.num_row_groups):
            group = footer.row_group(row)
            key, value = group.column(0), group.column(1)
            start = value.data_page_offset
            positions[row] = key.data_page_offset, start, start + value.total_compressed_size
        with self._lock:
            self._positions[shard] = positions
            while len(self._positions) > self._known_shards:
                self._positions.popitem(last=False)
        return positions


class _Place(NamedTuple):
    """Where a row lies: its file, where its two pages begin, and how long both are together."""

    fd: int
    key_at: int
    value_at: int
    length: int


def _read_row(place: _Place, image_id: str, out: np.ndarray, flags: int = 0) -> str | None:
    """Read a row into `out`; return None or why it is unusable, `_NOT_NOW` where `flags` forbid to wait."""
    target = memoryview(out.data).cast("B")
    headers = bytearray(place.length - target.nbytes)
    try:
        if os.preadv(place.fd, [headers, target], place.key_at, flags) != place.length:
            return _NOT_NOW if flags else "the shard is cut short"
        before_value = place.value_at - place.key_at
        size, key_crc = _page_header(headers)
        key = headers[before_value - size : before_value]
        value_size, value_crc = _page_header(headers[before_value:])
    except (OSError, ValueError, OverflowError) as error:
        # Some file systems cannot tell what is in memory (EOPNOTSUPP).
        return _NOT_NOW if flags and isinstance(error, OSError) else f"the row cannot be read ({error})"
    if crc32(key) != key_crc or value_size != target.nbytes:
        return "the page holding the key fails its checksum"
    if key[4:] != image_id.encode():
        return "the row belongs to another image"
    return None if crc32(target) == value_crc else "the page fails its checksum"


def _page_header(data: bytearray) -> tuple[int, int]:
    """Return size and CRC-32 from a page's Thrift header (Parquet's PageHeader, fields 1 to 4).

    Raises:
        ValueError: this is no such header.
    """
    values, at = [], 0
    for _ in range(4):
        if data[at : at + 1] != b"\x15":  # the next field, an i32
            raise ValueError("no page header with a checksum")
        at += 1
        value = shift = 0
        while True:
            byte = data[at] if at < len(data) and shift < 35 else -1
            if byte < 0:
                raise ValueError("a page header is cut short")
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        values.append((value >> 1) ^ -(value & 1))  # zigzag
    return values[2], values[3] & 0xFFFFFFFF

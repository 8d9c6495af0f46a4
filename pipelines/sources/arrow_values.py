"""Values of Arrow arrays as a listing's cells: bounded texts, times, what has no meaning here as text."""

from __future__ import annotations

import contextlib
import math
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sources.errors import SourceError

__all__ = ["cells_of", "is_text", "text_bytes"]

MAX_TEXT_BYTES = 64 << 10  # of one value
EPOCH = datetime(1970, 1, 1)
MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1, "D": 86_400 * 10**6}
MAX_MICROSECONDS = 10**16  # beyond any year that is accepted
NESTED = ("geometry", "lat_lon", "lat", "lon", "tags")


def is_text(kind: pa.DataType) -> bool:
    """Return whether the values are bytes or text."""
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def text_bytes(array: pa.Array, name: object) -> int:
    """Return the size of an array's texts when each value is written out.

    Raises:
        SourceError: one of them is too long.
    """
    indices = None
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_map(array.type):
        return text_bytes(array.keys, name) + text_bytes(array.items, name)
    if pa.types.is_struct(array.type):
        return sum(text_bytes(field, name) for field in array.flatten())
    if pa.types.is_nested(array.type):
        return text_bytes(array.flatten(), name)
    if isinstance(array, pa.DictionaryArray):
        indices, array = array.indices, array.dictionary
    kind = array.type
    if not (is_text(kind) or pa.types.is_large_binary(kind)) or not len(array):
        return 0
    lengths = pc.binary_length(array)
    longest = pc.max(lengths).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise SourceError(f"{name}: a value has {longest} bytes, {MAX_TEXT_BYTES} at most: is it a listing?")
    if indices is not None:
        lengths = lengths.take(indices)
    return pc.sum(lengths).as_py() or 0


def cells_of(array: pa.Array, ours: str) -> list[Any]:
    """Return the values of an array as Python objects; what has no meaning here becomes text."""
    if isinstance(array, pa.ExtensionArray):
        if str(array.type).startswith("extension<arrow.uuid"):
            return [
                None if value is None else str(uuid.UUID(bytes=value)) for value in array.storage.to_pylist()
            ]
        array = array.storage
    if isinstance(array, pa.DictionaryArray) and len(array.dictionary) > len(array):
        array = array.dictionary_decode()
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        values = cells_of(array.dictionary, ours)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    if pa.types.is_timestamp(kind):
        aware = kind.tz is not None
        return [_moment(value, kind.unit, aware=aware) for value in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_date(kind):
        unit, width = ("D", pa.int32()) if pa.types.is_date32(kind) else ("ms", pa.int64())
        return [_moment(value, unit, aware=False) for value in array.cast(width).to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):  # a file may claim UTF-8 wrongly
        texts = array.cast(pa.large_binary()).to_pylist()
        return [None if text is None else text.decode("utf-8", "replace") for text in texts]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return array.to_pylist() if ours in NESTED else _decoded(array.to_pylist())
    values = [f"a value of type {kind}"] * len(array)
    if ours in NESTED or not pa.types.is_nested(kind):
        # Times of day and durations may be beyond Python's.
        with contextlib.suppress(ValueError, OverflowError):
            values = array.to_pylist()
    if ours == "image_id":  # pandas makes floats of integers where one is missing
        values = [
            int(value) if isinstance(value, float | Decimal) and _is_whole(value) else value
            for value in values
        ]
    return values


def _is_whole(value: float | Decimal) -> bool:
    return math.isfinite(value) and value == int(value)


def _decoded(values: list[bytes | None]) -> list[str | None]:
    return [None if value is None else value.decode("utf-8", "replace") for value in values]


def _moment(value: int | None, unit: str, *, aware: bool) -> datetime | str | None:
    """Return the time that a number of units since 1970 means, or text where it is beyond any year."""
    if value is None:
        return None
    micro = value // 1000 if unit == "ns" else value * MICROSECONDS[unit]
    if abs(micro) > MAX_MICROSECONDS:
        return f"{value} {unit} since 1970"
    time = EPOCH + timedelta(microseconds=micro)
    return time.replace(tzinfo=UTC) if aware else time

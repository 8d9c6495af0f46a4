"""The file of an aggregation: safetensors, whose values are checked before they are used."""

from __future__ import annotations

import json

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from models.aggregation.rejected import AggregationRejected
from storage.json_values import finite_number, parse_object, whole_number

__all__ = ["MAX_BYTES", "read_values", "write_values"]

MAX_BYTES = 256 << 20
_MAX_WORDS, _MAX_COMPONENTS = 256, 512
_KEY = "placeray_aggregation"
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError, OverflowError)
_DTYPES = {"words": np.float32, "mean": np.float32, "projection": np.float16}


def write_values(arrays: dict[str, NDArray[np.generic]], values: dict[str, float]) -> bytes:
    """Return arrays and numbers as the bytes of a safetensors file."""
    little = {
        name: np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
    }
    if values["vocabularies"] == 1:  # as it was written before there were several
        described = {"version": 1} | {name: value for name, value in values.items() if name != "vocabularies"}
    else:
        described = {"version": 2, **values}
    metadata = {_KEY: json.dumps(described, sort_keys=True)}
    return bytes(safetensors.numpy.save(little, metadata=metadata))


def read_values(data: bytes) -> tuple[dict[str, NDArray[np.floating]], dict[str, float]]:
    """Read what `write_values` returned.

    Raises:
        AggregationRejected: too many bytes, no such file, or shapes, types or values that do not fit.
    """
    if len(data) > MAX_BYTES:
        raise AggregationRejected(
            "too_large", f"an aggregation of {len(data)} bytes is too large: give a file that placeray wrote"
        )
    try:
        length = int.from_bytes(data[:8], "little")
        header = parse_object(data[8 : 8 + length])
        values = parse_object(header["__metadata__"][_KEY])
        arrays = safetensors.numpy.load(data)
        numbers = {
            "softness": finite_number(values["softness"], 0.0, 1e6),
            "photos": whole_number(values["photos"], 0, 10**12),
            "city_photos": whole_number(values["city_photos"], 0, 10**12),
            "left_out": finite_number(values["left_out"], 0.0, 1.0),
            "automatic": {True: 1, False: 0}[values["automatic"]],
            "vocabularies": 1,
        }
        if whole_number(values["version"], 1, 2) == 2:
            numbers["vocabularies"] = whole_number(values["vocabularies"], 2, _MAX_WORDS)
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        safetensors.SafetensorError,
    ) as error:
        raise AggregationRejected(
            "unreadable",
            f"the aggregation is damaged or not one that placeray wrote ({type(error).__name__}): restore it "
            "from a backup, or learn again with `placeray relearn`",
        ) from error
    _check(arrays, int(numbers["vocabularies"]))
    return arrays, numbers


def _check(arrays: dict[str, NDArray[np.generic]], vocabularies: int) -> None:
    words, mean, projection = (arrays.get(name) for name in _DTYPES)
    shapes = {name: None if array is None else array.shape for name, array in arrays.items()}
    fits = (
        arrays.keys() == _DTYPES.keys()
        and words is not None
        and mean is not None
        and projection is not None
        and all(arrays[name].dtype == dtype for name, dtype in _DTYPES.items())
        and words.ndim == 2
        and 1 <= words.shape[0] <= _MAX_WORDS
        and words.shape[0] % vocabularies == 0
        and words.shape[1] >= 1
        and mean.shape == (words.size,)
        and projection.ndim == 2
        and projection.shape[0] == words.size
        and projection.shape[1] <= _MAX_COMPONENTS
        and all(np.isfinite(arrays[name]).all() for name in _DTYPES)
    )
    if not fits:
        raise AggregationRejected(
            "wrong_shapes",
            f"the arrays {shapes} are not those of an aggregation: give a file that placeray wrote",
        )

"""Local features as a store keeps them: what aggregations are learned from and applied to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from models.aggregation.aggregation import Aggregation
from storage.features.encodings import FeatureCodec

__all__ = ["DecodedRows", "decoded", "describe_rows"]

_BLOCK = 64


def decoded(codec: FeatureCodec, rows: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Decode features to floats; the bits of binary ones become -1 and 1.

    Args:
        codec: Of the store.
        rows: (B, row_bytes) uint8.

    Returns:
        (B, H, W, C') float16 or float32.
    """
    features: NDArray[Any] = codec.decode(np.ascontiguousarray(rows))
    if not codec.binary:
        return features
    bits = np.unpackbits(features, axis=-1, count=codec.channels)
    return bits.astype(np.float32) * 2 - 1


class DecodedRows(Sequence[NDArray[np.floating]]):
    """Encoded features of photos as blocks of decoded ones, each decoded when it is read.

    Args:
        codec: Of the store.
        rows: (K, row_bytes) uint8.
    """

    def __init__(self, codec: FeatureCodec, rows: NDArray[np.uint8]) -> None:
        self._codec = codec
        self._rows = rows

    def __len__(self) -> int:
        return -(-len(self._rows) // _BLOCK)

    @overload
    def __getitem__(self, at: int) -> NDArray[np.floating]: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[NDArray[np.floating]]: ...

    def __getitem__(self, at: int | slice) -> NDArray[np.floating] | Sequence[NDArray[np.floating]]:
        """Return one block of up to 64 photos, or several."""
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        return decoded(self._codec, self._rows[at * _BLOCK : (at + 1) * _BLOCK])


def describe_rows(
    aggregation: Aggregation, codec: FeatureCodec, rows: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return the descriptors of photos from their encoded features.

    Args:
        aggregation: Of the store.
        codec: Of the store.
        rows: (B, row_bytes) uint8.

    Returns:
        (B, 512) float32, unit L2 norm.
    """
    blocks = [
        aggregation.describe(decoded(codec, rows[at : at + _BLOCK])) for at in range(0, len(rows), _BLOCK)
    ]
    return np.concatenate(blocks) if blocks else aggregation.describe(decoded(codec, rows))

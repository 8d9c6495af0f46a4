"""Encodings of local features: their bytes, and how they are decoded for matching.

| encoding | bytes for N cells of C channels | decoded as |
|---|---|---|
| float16 | 2 N C | (H, W, C) float16, the bytes themselves |
| int8 | 4 + N C | (H, W, C) float32 |
| int8-pca32 | 4 + 32 N | (H, W, 32) float32, compared with a projected query |
| int4 | 4 + N C / 2 | (H, W, C) float32 |
| int4-pca64 | 4 + 32 N | (H, W, 64) float32, compared with a projected query |
| int2 | 4 + N C / 4 | (H, W, C) float32 |
| binary | N C / 8 | (H, W, C / 8) uint8, packed signs, compared by Hamming distance |
| none | 0 | nothing: a store without local features |

Scaled encodings begin with one little-endian float32 per image, the step between two levels. Each cell's
features have unit norm, so one step suits all cells of an image. The step of 4 and 2 bits is a little wider
than the quantisation intervals, so that an image's inner product with its own decoded features is unchanged;
otherwise coarse levels would lower every similarity (Gao and Long, "RaBitQ", SIGMOD 2024, section 3.2, for
one bit), and fewer pairs would reach a model's minimum similarity.

This module decodes, with NumPy alone. `models.feature_encoder` is the other half and writes these bytes with
torch, on the device that made the features: whoever changes a layout here changes it there.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.card import NO_FEATURES, Card, FeatureEncoding
from storage.errors import CorruptStore, InvalidBatch
from storage.features.projection import projection_sha256, read_projection
from storage.features.whitening import read_whitening, whiten
from storage.objects.files import Location

__all__ = ["FeatureCodec", "default_encoding", "open_codec", "projected_channels"]

_SCALE_BYTES = 4
_LARGE_CELLS, _LARGE_CHANNELS = 2048, 128  # measured at 61 x 61 cells of 128 channels


def default_encoding(card: Card) -> FeatureEncoding:
    """Return the smallest encoding that lost no recall in measurements with features of this shape.

    Measured by R@1 after re-ranking (benchmarks/README.md, Features on disk). On small maps match counts are
    small too, and everything below float16 changed a first result; maps of SelaVPR's shape have enough cells.
    Features wider than SelaVPR's were not measured. SelaVPR++ was made to need none.
    """
    if not card.feature_dim or card.code_bits or card.model.startswith("selavprpp-"):
        return NO_FEATURES
    large = card.grid_height * card.grid_width >= _LARGE_CELLS and card.feature_dim <= _LARGE_CHANNELS
    return "int4-pca64" if large else "float16"


def projected_channels(encoding: str, feature_dim: int) -> int | None:
    """Return how many channels an encoding projects features of `feature_dim` to; None if it does not."""
    match = re.search(r"-pca(\d+)$", encoding)
    return min(int(match[1]), feature_dim) if match else None


def open_codec(folder: Location, card: Card) -> FeatureCodec:
    """Return the codec of the store in `folder`, with its learned projection and whitening.

    Raises:
        CorruptStore: the projection or whitening that the card names is missing or damaged.
    """
    whitening = None
    if card.local_whitening_sha256 is not None:
        whitening = read_whitening(folder, card.local_whitening_sha256, card.feature_dim)
    channels = projected_channels(card.feature_encoding, card.feature_dim)
    if channels is None:
        return FeatureCodec(card, whitening=whitening)
    if card.projection_sha256 is None:
        raise CorruptStore("the card does not name its projection: restore card.json from a backup")
    shape = (card.feature_dim, channels)
    projection = read_projection(folder, card.projection_sha256, shape=shape)
    return FeatureCodec(card, projection=projection, whitening=whitening)


class FeatureCodec:
    """Decodes the local features of one store; safe to share between threads.

    Attributes:
        encoding: The card's feature encoding.
        row_bytes: Bytes per image.
        grid: H and W.
        feature_dim: C, channels of a model's features.
        channels: C' of decoded features, or the number of bits per cell.
        binary: Whether `decode` and `query` return packed bits.
        projection: (C, C') float32 for encodings that project, else None.
        whitening: (C, C) float32 that features are multiplied with first, see `storage.features.whitening`;
            None without one.
    """

    def __init__(
        self,
        card: Card,
        *,
        projection: NDArray[np.float32] | None = None,
        whitening: NDArray[np.float32] | None = None,
    ) -> None:
        """Create the codec for a card.

        Args:
            card: The store's card.
            projection: (C, C') float32, for encodings that project.
            whitening: (C, C) float32, for cards that name one.

        Raises:
            InvalidBatch: the projection or whitening is missing, has another shape, or is not needed.
        """
        square = None if card.local_whitening_sha256 is None else (card.feature_dim, card.feature_dim)
        if (None if whitening is None else whitening.shape) != square:
            raise InvalidBatch(
                f"local features of this card need a whitening of shape {square}: give the one that it names"
            )
        channels = projected_channels(card.feature_encoding, card.feature_dim)
        shape = None if channels is None else (card.feature_dim, channels)
        if (None if projection is None else projection.shape) != shape:
            raise InvalidBatch(
                f"features encoded as {card.feature_encoding} need a projection of shape {shape}: "
                "fit it with storage.features.projection.fit_projection"
            )
        self.encoding = card.feature_encoding
        self.grid = (card.grid_height, card.grid_width)
        self.channels = channels or card.feature_dim
        self.binary = self.encoding == "binary"
        self._kind = self.encoding.partition("-")[0]
        self.feature_dim = card.feature_dim
        self.projection = projection
        self.whitening = whitening
        self._values = card.grid_height * card.grid_width * self.channels
        self.row_bytes = {
            "float16": 2 * self._values,
            "int8": _SCALE_BYTES + self._values,
            "int4": _SCALE_BYTES + -(-self._values // 2),
            "int2": _SCALE_BYTES + -(-self._values // 4),
            "binary": card.grid_height * card.grid_width * -(-self.channels // 8),
            "none": 0,
        }[self._kind]

    @property
    def projection_sha256(self) -> str | None:
        """The digest that identifies the projection on the card."""
        return None if self.projection is None else projection_sha256(self.projection)

    def decode(self, rows: NDArray[np.uint8]) -> NDArray[Any]:
        """Decode images for `models.matching.mutual` or `models.matching.binary`.

        Args:
            rows: (K, row_bytes) uint8, C-contiguous; a row of zeros decodes to zeros.

        Returns:
            (K, H, W, C') float16 or float32, or (K, H, W, ceil(C / 8)) uint8 of packed bits; a view of `rows`
            where no conversion is needed.
        """
        if self._kind == "none":
            return np.zeros((len(rows), *self.grid, self.channels), np.float16)
        if self._kind == "float16":
            return rows.view(np.float16).reshape(len(rows), *self.grid, self.channels)
        if self.binary:
            return rows.reshape(len(rows), *self.grid, -1)
        steps = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")[:, 0]
        payload = rows[:, _SCALE_BYTES:]
        decoded = np.empty((len(rows), self._values), np.float32)
        for step, row, out in zip(steps, payload, decoded, strict=True):
            if self._kind == "int8":
                np.multiply(row.view(np.int8), step, out=out)
            else:
                _unpack(row, step, out, bits=int(self._kind[3:]))
        return decoded.reshape(len(rows), *self.grid, self.channels)

    def query(self, features: NDArray[np.float32]) -> NDArray[Any]:
        """Convert a query's features for comparison with decoded ones.

        Args:
            features: (..., C) float32.

        Returns:
            (..., C') float32, or (..., ceil(C / 8)) uint8 of packed bits.
        """
        if self.whitening is not None:
            features = whiten(features, self.whitening)
        if self.binary:
            return np.packbits(features > 0, axis=-1)
        return features if self.projection is None else features @ self.projection


def _levels(bits: int) -> NDArray[np.float32]:
    """Return (256, 8 / bits) float32: the levels packed in each byte, as interval midpoints, in steps."""
    byte = np.arange(256)[:, None] >> (bits * np.arange(8 // bits))
    return (byte & ((1 << bits) - 1)).astype(np.float32) - ((1 << bits) - 1) / np.float32(2)


_LEVELS = {bits: _levels(bits) for bits in (2, 4)}


def _unpack(row: NDArray[np.uint8], step: np.float32, out: NDArray[np.float32], *, bits: int) -> None:
    """Write the values of packed levels to `out`, whose end may lie within the last byte."""
    table = _LEVELS[bits] * step
    # All values of a byte are copied as one item of 8 or 16 bytes.
    wide = table.view(np.int64 if bits == 4 else np.complex128)[:, 0]
    if len(out) % table.shape[1] == 0:
        wide.take(row, out=out.view(wide.dtype), mode="clip")
    else:
        out[:] = wide.take(row).view(np.float32)[: len(out)]

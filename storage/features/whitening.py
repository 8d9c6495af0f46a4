"""The whitening of local features: a map that is applied to each cell before features are encoded.

It is decided when a store is made and never changes. Both sides of a comparison are whitened: stored features
before they are encoded, a query's before they are compared.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from storage.artifacts import read_artifact
from storage.errors import CorruptStore, InvalidBatch
from storage.objects.files import Location

__all__ = ["parse_whitening", "read_whitening", "whiten", "whitening_bytes", "whitening_sha256"]


def whiten(features: NDArray[np.float32], whitening: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map each cell's features and bring them to unit L2 norm; features of all zeros stay so.

    Args:
        features: (..., C) float32.
        whitening: (C, C) float32, multiplied from the right.

    Returns:
        (..., C) float32.
    """
    mapped = features @ whitening
    norms = np.linalg.norm(mapped, axis=-1, keepdims=True)
    return np.asarray(mapped / np.where(norms > 0, norms, 1), np.float32)


def whitening_bytes(whitening: NDArray[np.float32]) -> bytes:
    """Return the contents of the artifact: C x C numbers, float32, little-endian, row by row."""
    return np.ascontiguousarray(whitening, dtype="<f4").tobytes()


def whitening_sha256(whitening: NDArray[np.float32]) -> str:
    """Return the digest that identifies a whitening on the card."""
    return hashlib.sha256(whitening_bytes(whitening)).hexdigest()


def parse_whitening(data: bytes, channels: int) -> NDArray[np.float32]:
    """Return the (C, C) float32 map in the contents of an artifact.

    Raises:
        InvalidBatch: another size, or values that are not finite.
    """
    values = np.frombuffer(data, "<f4") if len(data) == 4 * channels * channels else np.empty(0, "<f4")
    if not values.size or not np.isfinite(values).all():
        raise InvalidBatch(
            f"a whitening of {len(data)} bytes is not {channels} x {channels} finite numbers (float32): give "
            "that of storage.features.whitening.whitening_bytes"
        )
    return values.reshape(channels, channels).astype(np.float32)


def read_whitening(folder: Location, sha256: str, channels: int) -> NDArray[np.float32]:
    """Return the (C, C) float32 map of the store in `folder`.

    Raises:
        CorruptStore: the artifact is missing or damaged, or is no whitening.
    """
    try:
        return parse_whitening(read_artifact(folder, sha256), channels)
    except InvalidBatch as error:
        raise CorruptStore(
            f"artifact {sha256} of {folder} is not a whitening ({error}): restore the store from a backup"
        ) from error

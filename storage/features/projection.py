"""A learned projection of local features to fewer channels, stored next to the card."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from storage.errors import CorruptStore, InvalidBatch
from storage.objects.files import Location, read_bounded, write_file

__all__ = ["fit_projection", "projection_path", "projection_sha256", "read_projection", "write_projection"]

_SAMPLE_CELLS = 200_000
_SEED = 0


def fit_projection(features: NDArray[np.floating], channels: int) -> NDArray[np.float32]:
    """Fit the projection that preserves inner products best.

    The leading eigenvectors of the second moment E[x x^T] lose least of it (Eckart and Young, "The
    approximation of one matrix by another of lower rank", 1936). There is no centring, because
    matching compares inner products about the origin. A fixed random rotation follows, which changes no inner
    product and spreads the variance evenly over the channels, so that few bits per channel suffice (Jegou et
    al., "Aggregating local descriptors into a compact image representation", CVPR 2010, section 3.2).

    Args:
        features: (..., C) float, finite, of images like those to be stored; at least C cells.
        channels: C', at most C.

    Returns:
        (C, C') float32, orthonormal columns; deterministic.

    Raises:
        InvalidBatch: too few cells, or too many `channels`.
    """
    width = features.shape[-1]
    cells = features.reshape(-1, width)
    if not 0 < channels <= width or len(cells) < width:
        raise InvalidBatch(
            f"{len(cells)} cells of {width} channels are too few to fit a projection to {channels}: give "
            "more images, or choose a feature encoding without pca in its name"
        )
    random = np.random.default_rng(_SEED)
    if len(cells) > _SAMPLE_CELLS:
        cells = cells[np.sort(random.choice(len(cells), _SAMPLE_CELLS, replace=False))]
    cells = cells.astype(np.float64)
    _, vectors = np.linalg.eigh(cells.T @ cells / len(cells))
    leading = vectors[:, ::-1][:, :channels]
    rotation, _ = np.linalg.qr(random.standard_normal((channels, channels)))
    return np.ascontiguousarray(leading @ rotation, dtype=np.float32)


def projection_sha256(projection: NDArray[np.float32]) -> str:
    """Return the digest that identifies a projection on the card."""
    return hashlib.sha256(_bytes(projection)).hexdigest()


def projection_path(folder: Location, sha256: str) -> Location:
    """Return the path of a projection in the store in `folder`."""
    return folder / f"projection-{sha256[:16]}.f32"


def write_projection(folder: Location, projection: NDArray[np.float32]) -> None:
    """Write a projection durably; to be done before writing the card that names it.

    Raises:
        OutOfSpace: the disk is full.
    """
    write_file(projection_path(folder, projection_sha256(projection)), _bytes(projection))


def read_projection(folder: Location, sha256: str, *, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Read the projection that a card names.

    Returns:
        (C, C') float32.

    Raises:
        CorruptStore: it is missing or damaged.
    """
    path = projection_path(folder, sha256)
    try:
        data = read_bounded(path, 4 * shape[0] * shape[1])
    except OSError as error:
        raise CorruptStore(
            f"{path} cannot be read ({error}): restore it from a backup, or index into a new store"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256 or len(data) != 4 * shape[0] * shape[1]:
        raise CorruptStore(f"{path} is damaged: restore it from a backup, or index into a new store")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


def _bytes(projection: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(projection, dtype="<f4").tobytes()

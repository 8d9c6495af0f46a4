"""The photos that are trained on: listed, checked before hours are spent, read as the model wants them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.images.decoder import ImageRejected, decode_image
from models.images.photo_file import read_bytes
from models.images.preprocess import prepare
from pipelines.sources import list_source, open_dataset
from pipelines.training.errors import DataRejected
from pipelines.training.neighbours import Places
from storage.card import Preprocessing

__all__ = ["PhotoSet", "Photos", "TrainingSet", "open_training_set", "rejected_photo"]

Prepared = NDArray[Any]


@dataclass(frozen=True)
class PhotoSet:
    """Photos in a fixed order: row i is always the same photo.

    Attributes:
        uris: Paths.
        places: Where they were taken.
        night: (N,) bool, marked `night` in the note of the file name.
        sideways: (N,) bool, marked `sideways` there.
    """

    uris: tuple[str, ...]
    places: Places
    night: NDArray[np.bool_]
    sideways: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.uris)


@dataclass(frozen=True)
class TrainingSet:
    """Queries and database of one split.

    Attributes:
        name: For reports.
        folder: Where both lie.
        queries: Photos to train on.
        database: Where positives and negatives come from.
        unusable: Photos that the listing itself rejects: path, reason, message.
        digest: Of every path in order, so that all workers, and a resumed run, mean the same rows.
    """

    name: str
    folder: Path
    queries: PhotoSet
    database: PhotoSet
    unusable: tuple[tuple[str, str, str], ...]
    digest: str


def open_training_set(
    dataset: str | Path, *, split: str, without: frozenset[str] = frozenset()
) -> TrainingSet:
    """List a split of a data set in the standard layout.

    Args:
        dataset: The data set.
        split: Which of train, val, test where it has them.
        without: Paths to leave out, because they cannot be decoded.

    Raises:
        SourceError: there is no such split, or no photo in it.
    """
    layout = open_dataset(dataset, split=split)
    digest = hashlib.sha256()
    unusable: list[tuple[str, str, str]] = []
    sets = []
    for folder in (layout.queries, layout.database):
        listing = list_source(folder).sort_by("uri")
        unusable += [
            (row["uri"], row["rejected"], row["message"] or "")
            for row in listing.filter(pa.compute.is_valid(listing["rejected"])).to_pylist()
        ]
        good = listing.filter(pa.compute.is_null(listing["rejected"]))
        left_out = pa.array(sorted(without), pa.string())
        sets.append(_photo_set(good.filter(pa.compute.invert(pa.compute.is_in(good["uri"], left_out)))))
        for uri in sets[-1].uris:
            digest.update(uri.encode() + b"\0")
        digest.update(b"\n")
    queries, database = sets
    return TrainingSet(
        layout.name, layout.database.parent, queries, database, tuple(unusable), digest.hexdigest()
    )


def _photo_set(listing: pa.Table) -> PhotoSet:
    uris = tuple(listing["uri"].to_pylist())
    metres = [np.array(listing[name].to_pylist(), np.float64) for name in ("utm_e", "utm_n")]
    names = [Path(uri).name for uri in uris]
    notes = [(name.split("@") + [""] * 15)[14].lower() for name in names]
    return PhotoSet(
        uris,
        Places(np.stack(metres, axis=1), listing["utm_zone"].to_pylist(), names),
        np.array(["night" in note for note in notes], bool),
        np.array(["sideways" in note for note in notes], bool),
    )


def rejected_photo(uri: str) -> tuple[str, str, str] | None:
    """Decode a photo and return its path, the reason and a message if that fails."""
    try:
        decode_image(read_bytes(uri))
    except ImageRejected as error:
        return uri, error.reason, str(error)
    return None


class Photos:
    """Reads photos at the network's input size, several at once, and keeps the first that fit in memory."""

    def __init__(
        self,
        uris: Sequence[str],
        preprocessing: Preprocessing,
        *,
        cache_bytes: int = 128 << 20,
        threads: int = 1,
    ) -> None:
        self._uris = uris
        self._preprocessing = preprocessing
        self._left = cache_bytes
        self._kept: dict[int, Prepared] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self._uris)

    def close(self) -> None:
        """End the reading threads."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> Prepared:
        """Return photos as `models.images.preprocess.prepare` makes them.

        Args:
            rows: (n,) row numbers.

        Returns:
            (n, h, w, 3) uint8 or float32.

        Raises:
            DataRejected: a photo can no longer be decoded.
        """
        return np.stack(list(self._pool.map(self._photo, map(int, rows))))

    def _photo(self, row: int) -> Prepared:
        kept = self._kept.get(row)
        if kept is not None:
            return kept
        uri = self._uris[row]
        try:
            photo = prepare(decode_image(read_bytes(uri)).pixels, self._preprocessing)
        except ImageRejected as error:
            raise DataRejected(
                "photo_lost",
                f"{uri} could be read when training began and no longer can ({error}): put it back and run "
                "the same command again",
            ) from error
        with self._lock:
            if self._left >= photo.nbytes and row not in self._kept:
                self._left -= photo.nbytes
                self._kept[row] = photo
        return photo

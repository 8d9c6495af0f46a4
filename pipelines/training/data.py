"""The data sets of training: which photos they hold, and where those were taken."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.sources import list_source, open_dataset
from storage.position import POSITION_COLUMNS, Positions

__all__ = ["DataFolders", "PhotoSet", "TrainingSet", "open_training_set"]


@dataclass(frozen=True)
class PhotoSet:
    """Photos in a fixed order: row i is always the same photo.

    Attributes:
        uris: Paths.
        positions: Where they were taken.
        night: (N,) bool, marked `night` in the note of the file name.
        sideways: (N,) bool, marked `sideways` there.
    """

    uris: tuple[str, ...]
    positions: Positions
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
        digest: Of every path in order, so that all workers and resumed runs agree on the rows.
    """

    name: str
    folder: Path
    queries: PhotoSet
    database: PhotoSet
    unusable: tuple[tuple[str, str, str], ...]
    digest: str


def open_training_set(
    dataset: str | Path,
    *,
    split: str,
    without: frozenset[str] = frozenset(),
    follow_links: bool = False,
) -> TrainingSet:
    """List the photos of a split of a data set in the standard layout.

    Args:
        dataset: The data set.
        split: One of train, val and test, where the data set has them.
        without: Paths to leave out, because they cannot be decoded.
        follow_links: Whether symbolic links may lead out of the folders.

    Raises:
        SourceError: the split does not exist or holds no photos.
    """
    layout = open_dataset(dataset, split=split)
    digest = hashlib.sha256()
    unusable: list[tuple[str, str, str]] = []
    sets = []
    for folder in (layout.queries, layout.database):
        listing = list_source(folder, follow_links=follow_links).sort_by("uri")
        unusable += [
            (row["uri"], row["rejected"], row["message"] or "")
            for row in listing.filter(pa.compute.is_valid(listing["rejected"])).to_pylist()
        ]
        good = listing.filter(pa.compute.is_null(listing["rejected"]))
        excluded = pa.array(sorted(without), pa.string())
        sets.append(_photo_set(good.filter(pa.compute.invert(pa.compute.is_in(good["uri"], excluded)))))
        for uri in sets[-1].uris:
            digest.update(uri.encode() + b"\0")
        digest.update(b"\n")
    queries, database = sets
    return TrainingSet(
        layout.name, layout.database.parent, queries, database, tuple(unusable), digest.hexdigest()
    )


def _photo_set(listing: pa.Table) -> PhotoSet:
    uris = tuple(listing["uri"].to_pylist())
    notes = [(Path(uri).name.split("@") + [""] * 15)[14].lower() for uri in uris]
    return PhotoSet(
        uris,
        Positions.from_columns({name: listing[name].to_pylist() for name in POSITION_COLUMNS}),
        np.array(["night" in note for note in notes], bool),
        np.array(["sideways" in note for note in notes], bool),
    )


@dataclass(frozen=True)
class DataFolders:
    """Where the photos are, and which of them to leave out."""

    dataset: str
    split: str
    val: str
    val_split: str
    without: tuple[str, ...] = ()
    follow_links: bool = False

    def open(self) -> tuple[TrainingSet, TrainingSet]:
        """List the photos to train on and those to validate with."""
        without = frozenset(self.without)
        train, val = (
            open_training_set(folder, split=split, without=without, follow_links=self.follow_links)
            for folder, split in ((self.dataset, self.split), (self.val, self.val_split))
        )
        return train, val

"""Which database photos lie near each query: its positives, and those that may not be its negatives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.training.data import PhotoSet
from pipelines.training.errors import MiningRejected
from storage.neighbourhoods import Neighbourhoods, nearby

__all__ = ["Neighbours", "find_neighbours"]

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """For each query the database photos near it. Rows of `usable` are the queries to train on.

    Attributes:
        queries: Number of queries, usable or not.
        database: Number of database photos.
        negatives: Number of negatives that each usable query has at least.
        usable: (U,) int64, sorted rows of the queries with a positive and enough negatives.
        without_positive: Queries left out because no database photo is near enough.
        without_negative: Queries with a positive, left out because too few database photos are far enough.
    """

    queries: int
    database: int
    negatives: int
    usable: Indices
    without_positive: int
    without_negative: int
    _positives: Neighbourhoods
    _excluded: Neighbourhoods

    def positives(self, query: int) -> Indices:
        """Return the sorted database rows within the positive distance of a query, inclusive."""
        return self._positives.of(query)

    def excluded(self, query: int) -> Indices:
        """Return the sorted database rows that may not be negatives of a query, its positives among them."""
        return self._excluded.of(query)


def find_neighbours(
    queries: PhotoSet,
    database: PhotoSet,
    *,
    positive_m: float = 10.0,
    negative_m: float = 25.0,
    negatives: int = 2,
) -> Neighbours:
    """Find each query's positives, and the database photos too near to be its negatives.

    Args:
        queries: Photos to train on.
        database: Photos that positives and negatives come from.
        positive_m: Distance up to which a photo is a positive, inclusive.
        negative_m: Distance beyond which a photo may be a negative, exclusive.
        negatives: Queries with fewer possible negatives are left out.

    Raises:
        ValueError: distances or the number of negatives are out of range.
        MiningRejected: there are no photos, coordinates are missing, or no query can be trained on.
    """
    if not 0 < positive_m <= negative_m < np.inf or negatives < 1:
        raise ValueError(
            f"distances {positive_m:g} m and {negative_m:g} m must rise from above 0, and negatives "
            f"{negatives} be 1 or more"
        )
    _require_positions(queries, "query")
    _require_positions(database, "database")
    excluded = nearby(queries.positions, database.positions, negative_m)
    positives = excluded.up_to(positive_m)
    has_positive = positives.counts() > 0
    has_negatives = len(database) - excluded.counts() >= negatives
    neighbours = Neighbours(
        queries=len(queries),
        database=len(database),
        negatives=negatives,
        usable=np.flatnonzero(has_positive & has_negatives),
        without_positive=int(np.count_nonzero(~has_positive)),
        without_negative=int(np.count_nonzero(has_positive & ~has_negatives)),
        _positives=positives,
        _excluded=excluded,
    )
    _require_usable(neighbours, positive_m, negative_m)
    return neighbours


def _require_positions(photos: PhotoSet, side: str) -> None:
    if not len(photos):
        raise MiningRejected("no_images", f"there is no {side} image: add images to the {side} folder")
    missing = np.flatnonzero(~photos.positions.known)
    if len(missing):
        raise MiningRejected(
            "missing_coordinates",
            f"{len(missing)} of {len(photos)} {side} images have no coordinates, such as "
            f"{Path(photos.uris[missing[0]]).name}: name files @easting@northing@..., or take these out",
        )


def _require_usable(neighbours: Neighbours, positive_m: float, negative_m: float) -> None:
    if len(neighbours.usable):
        return
    if neighbours.without_positive == neighbours.queries:
        raise MiningRejected(
            "no_positives",
            f"none of {neighbours.queries} queries has a database image within {positive_m:g} m: check that "
            "both folders show the same places, or allow a larger distance",
        )
    raise MiningRejected(
        "no_negatives",
        f"no query with a positive has {neighbours.negatives} database images beyond {negative_m:g} m: add "
        "images of more places",
    )

"""Who is near whom in metres: for each query its positives and the photos that may not be its negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.training.errors import MiningRejected

__all__ = ["MiningRejected", "Neighbours", "Places", "find_neighbours"]

Indices = NDArray[np.int64]

# Names carry centimetres: the slack keeps 10.00 m and 25.00 m inclusive in binary arithmetic.
_SLACK_M = 1e-6
_SOUTHERN_BANDS = frozenset("CDEFGHJKLM")


@dataclass(frozen=True)
class Places:
    """Where photos were taken.

    Attributes:
        utm_m: (N, 2) float64, easting and northing in metres; NaN where unknown.
        zones: UTM zone such as `33U` of each, or None where unknown.
        names: File name of each, for messages.
    """

    utm_m: NDArray[np.float64]
    zones: Sequence[str | None]
    names: Sequence[str]

    def __post_init__(self) -> None:
        if (
            self.utm_m.ndim != 2
            or self.utm_m.shape != (len(self.zones), 2)
            or len(self.names) != len(self.zones)
        ):
            raise ValueError(
                f"utm_m {self.utm_m.shape}, {len(self.zones)} zones and {len(self.names)} names must be of N "
                "photos: (N, 2), N and N"
            )


@dataclass(frozen=True)
class Neighbours:
    """For each query the database photos near it. Rows of `usable` are the queries to train on.

    Attributes:
        queries: Number of queries, usable or not.
        database: Number of database photos.
        negatives: How many negatives each usable query is sure to have.
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
    _positives: _Lists
    _excluded: _Lists

    def positives(self, query: int) -> Indices:
        """Return the sorted database rows within the positive distance of a query, inclusive."""
        return self._positives.of(query)

    def excluded(self, query: int) -> Indices:
        """Return the sorted database rows that may not be negatives of a query, its positives among them."""
        return self._excluded.of(query)


@dataclass(frozen=True)
class _Lists:
    """Database rows for each query, end to end: those of query i are values[ends[i]:ends[i + 1]]."""

    values: Indices
    ends: Indices

    def of(self, query: int) -> Indices:
        return self.values[self.ends[query] : self.ends[query + 1]]

    def lengths(self) -> Indices:
        return np.diff(self.ends)


def find_neighbours(
    queries: Places,
    database: Places,
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
        ValueError: distances or the number of negatives make no sense.
        MiningRejected: coordinates are missing or of several UTM zones, or no query can be trained on.
    """
    if not 0 < positive_m <= negative_m < np.inf or negatives < 1:
        raise ValueError(
            f"distances {positive_m:g} m and {negative_m:g} m must rise from above 0, and negatives "
            f"{negatives} be at least 1"
        )
    _require_comparable(queries, database)
    excluded, distance_m = _within(queries.utm_m, database.utm_m, negative_m + _SLACK_M)
    near = distance_m <= positive_m + _SLACK_M
    before = np.concatenate([[0], np.cumsum(near)])
    positives = _Lists(excluded.values[near], before[excluded.ends])
    has_positive = positives.lengths() > 0
    has_negatives = len(database.names) - excluded.lengths() >= negatives
    found = Neighbours(
        queries=len(queries.names),
        database=len(database.names),
        negatives=negatives,
        usable=np.flatnonzero(has_positive & has_negatives),
        without_positive=int(np.count_nonzero(~has_positive)),
        without_negative=int(np.count_nonzero(has_positive & ~has_negatives)),
        _positives=positives,
        _excluded=excluded,
    )
    _require_usable(found, positive_m, negative_m)
    return found


def _require_comparable(queries: Places, database: Places) -> None:
    """Refuse places that metres cannot compare."""
    seen: dict[tuple[str, str], str] = {}
    for side, places in (("query", queries), ("database", database)):
        if not len(places.names):
            raise MiningRejected("no_images", f"there is no {side} image: nothing can be mined")
        missing = np.flatnonzero(~np.isfinite(places.utm_m).all(axis=1))
        if len(missing):
            raise MiningRejected(
                "missing_coordinates",
                f"{len(missing)} of {len(places.names)} {side} images have no UTM coordinates, such as "
                f"{places.names[missing[0]]}: name files @easting@northing@..., or take these out",
            )
        for zone, name in zip(places.zones, places.names, strict=True):
            if zone:
                seen.setdefault(_zone_and_half(zone), name)
    # A zone without its band letter goes with either half of the globe, but not with another number.
    halves = {half for _, half in seen if half}
    if len({number for number, _ in seen}) > 1 or len(halves) > 1:
        listed = ", ".join(f"{number}{half} ({name})" for (number, half), name in sorted(seen.items()))
        raise MiningRejected(
            "mixed_zones",
            f"images lie in several UTM zones, where equal metres are different places: {listed}: train on "
            "one zone at a time, or project all coordinates into one",
        )


def _zone_and_half(zone: str) -> tuple[str, str]:
    """Split `33U` into its number and N or S, the half of the globe, which has its own northings."""
    number = zone.upper().rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    band = zone[len(number) :].upper()
    return number, "" if not band else "S" if band in _SOUTHERN_BANDS else "N"


def _require_usable(found: Neighbours, positive_m: float, negative_m: float) -> None:
    if len(found.usable):
        return
    if found.without_positive == found.queries:
        raise MiningRejected(
            "no_positives",
            f"none of {found.queries} queries has a database image within {positive_m:g} m: check that both "
            "folders show the same places, or allow a larger distance",
        )
    raise MiningRejected(
        "no_negatives",
        f"no query with a positive has {found.negatives} database images beyond {negative_m:g} m: add images "
        "of more places",
    )


def _within(
    points: NDArray[np.float64], others: NDArray[np.float64], radius_m: float
) -> tuple[_Lists, NDArray[np.float64]]:
    """Find the others within a radius of each point, by a grid of cells as wide as the radius.

    Args:
        points: (Q, 2) float64, metres, finite.
        others: (M, 2) float64, metres, finite.
        radius_m: Inclusive.

    Returns:
        found: The others' rows, sorted, for each point.
        distance_m: Of each of them, in the same order.
    """
    # A little wider than the radius, so that rounding moves nobody two cells away.
    width_m = radius_m * 1.001
    origin = np.minimum(points.min(axis=0), others.min(axis=0)) - width_m
    cell = np.floor((others - origin) / width_m).astype(np.int64)
    x, y = np.floor((points - origin) / width_m).astype(np.int64).T
    height = int(max(cell[:, 1].max(), y.max())) + 2
    order = np.lexsort((cell[:, 1], cell[:, 0]))
    keys = (cell[:, 0] * height + cell[:, 1])[order]
    # The three cells of a column that touch the point's lie together in the sorted keys.
    columns = [(x + shift) * height + y for shift in (-1, 0, 1)]
    first = np.stack([np.searchsorted(keys, column - 1, side="left") for column in columns], axis=1)
    last = np.stack([np.searchsorted(keys, column + 1, side="right") for column in columns], axis=1)
    rows, distances, ends = [], [], np.zeros(len(points) + 1, np.int64)
    for i, point in enumerate(points):
        near = np.concatenate([order[a:b] for a, b in zip(first[i], last[i], strict=True)])
        near.sort()
        distance_m = np.hypot(*(others[near] - point).T)
        inside = distance_m <= radius_m
        rows.append(near[inside])
        distances.append(distance_m[inside])
        ends[i + 1] = ends[i] + len(rows[-1])
    return _Lists(np.concatenate(rows), ends), np.concatenate(distances)

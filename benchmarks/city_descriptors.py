"""Random descriptors with the structure of a city, queries among them, and their exact neighbours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["KINDS", "SHAPES", "K", "Shape", "make_city"]

QUERIES, K, KINDS = 1000, 100, 500
_LENGTHS = {"common": 1.6, "district": 0.35, "street": 0.3, "place": 0.5, "photo": 0.55}
_BLOCK = 32_768


@dataclass(frozen=True)
class Shape:
    """How descriptors are spread.

    Attributes:
        decay: The variance of component i falls off as 1 / (1 + i)^decay.
        lengths: Of the step at each level. A pair that shares some levels has on average the sum of their
            squares as its cosine similarity, where the squares of all are 1 in sum.
    """

    decay: float
    lengths: dict[str, float] = field(default_factory=lambda: dict(_LENGTHS))


SHAPES = {
    "gem": Shape(1.0),
    # Of photos of a drawn city that the aggregation was not learned from, by `descriptor_shape`: 216
    # effective dimensions of 512; similarity 0.37 within 5 m, 0.03 along a street, 0.02 in a district, 0
    # beyond, where one pair in a thousand looks alike by 0.32 or more: hence the kinds.
    "learned": Shape(0.57, {"district": 0.14, "street": 0.1, "kind": 0.36, "place": 0.46, "photo": 0.79}),
    "uniform": Shape(0.0, {"photo": 1.0}),
}


def make_city(rows: int, folder: Path, *, shape: str = "gem", width: int = 1024, seed: int = 0) -> None:
    """Write rows.npy (rows, width) float16, queries.npy (1000, width) float32, truth.npy (1000, 100) int64.

    Each level is a normal step of the shape's length; all are added, scaled to unit norm and turned into a
    random basis. There are eight photos per place, forty places per street, twenty streets per district, and
    places of 500 kinds everywhere. Without levels above the photo, directions are uniform and a query is a
    row with a step half as long.
    """
    random = np.random.default_rng(seed)
    lengths, decay = SHAPES[shape].lengths, SHAPES[shape].decay
    spread = (1 + np.arange(width, dtype=np.float32)) ** np.float32(-decay / 2)
    spread /= np.linalg.norm(spread)
    streets = max(4, rows // 320)
    basis = np.linalg.qr(random.standard_normal((width, width)))[0].astype(np.float32)

    def steps(level: str, count: int) -> np.ndarray:
        if not lengths.get(level):
            return np.zeros((count, width), np.float32)
        return random.standard_normal((count, width), dtype=np.float32) * (
            spread * np.float32(lengths[level])
        )

    def unit(drawn: np.ndarray) -> np.ndarray:
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)) @ basis

    common = random.standard_normal(width, dtype=np.float32)
    common *= np.float32(lengths.get("common", 0.0)) / np.linalg.norm(common)
    districts = steps("district", max(2, streets // 20))
    street = districts[random.integers(len(districts), size=streets)] + steps("street", streets) + common
    kinds = steps("kind", KINDS)
    stored = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=np.float16, shape=(rows, width))
    chosen = np.sort(random.permutation(rows)[:QUERIES])
    queries = []
    for start in range(0, rows, _BLOCK):
        stop = min(rows, start + _BLOCK)
        place_of = np.arange(start, stop) // 8
        places, at = np.unique(place_of, return_inverse=True)
        place = steps("place", len(places)) + kinds[random.integers(KINDS, size=len(places))]
        around = street[(place_of // 40) % streets] + place[at]
        photos = steps("photo", stop - start)
        stored[start:stop] = unit(around + photos)
        here = chosen[(chosen >= start) & (chosen < stop)] - start
        if len(lengths) == 1:
            queries.append(unit(photos[here] + 0.5 * steps("photo", len(here))))
        else:
            queries.append(unit(around[here] + steps("photo", len(here))))
    stored.flush()
    asked = np.concatenate(queries)
    np.save(folder / "queries.npy", asked)
    np.save(folder / "truth.npy", _nearest(stored, asked, K))


def _nearest(stored: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return (B, k) int64: the rows of highest inner product, block by block in float32."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.zeros((len(queries), k), np.int64)
    for start in range(0, len(stored), _BLOCK):
        fresh = queries @ stored[start : start + _BLOCK].astype(np.float32).T
        best = np.argpartition(-fresh, min(k, fresh.shape[1] - 1), axis=1)[:, :k]
        both = np.concatenate([scores, np.take_along_axis(fresh, best, 1)], axis=1)
        numbers = np.concatenate([rows, best + start], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(both, order, 1), np.take_along_axis(numbers, order, 1)
    return rows

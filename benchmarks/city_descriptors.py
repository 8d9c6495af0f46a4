"""Random descriptors with the structure of a city, queries among them, and their exact neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["WIDTH", "K", "make_city"]

WIDTH, QUERIES, K = 1024, 1000, 100
LENGTHS = {"common": 1.6, "district": 0.35, "street": 0.3, "place": 0.5, "photo": 0.55}


def make_city(rows: int, folder: Path, *, seed: int = 0) -> None:
    """Write rows.npy (rows, 1024) float16, queries.npy (1000, 1024) float32 and truth.npy (1000, 100) int64.

    Each level is a normal step of `LENGTHS`, in 1,024 dimensions whose variance falls off as 1 / (1 + i); all
    are added to one common vector, scaled to unit norm and turned into a random basis. There are eight photos
    per place, forty places per street, twenty streets per district.
    """
    generator = np.random.default_rng(seed)
    spread = (1 / np.sqrt(1 + np.arange(WIDTH))).astype(np.float32)
    spread /= np.linalg.norm(spread)
    streets = max(4, rows // 320)

    basis = np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
    common = generator.standard_normal(WIDTH, dtype=np.float32)
    common *= LENGTHS["common"] / np.linalg.norm(common)

    def steps(level: str, count: int) -> np.ndarray:
        drawn = generator.standard_normal((count, WIDTH), dtype=np.float32)
        return drawn * (spread * np.float32(LENGTHS[level]))

    districts = steps("district", max(2, streets // 20))
    street = districts[generator.integers(len(districts), size=streets)] + steps("street", streets) + common

    def photos(of: np.ndarray, place: np.ndarray) -> np.ndarray:
        drawn = street[of] + place + steps("photo", len(of))
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)) @ basis

    stored = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=np.float16, shape=(rows, WIDTH))
    chosen = np.sort(generator.permutation(rows)[:QUERIES])
    queries = []
    for start in range(0, rows, 32_768):
        stop = min(rows, start + 32_768)
        place_of = np.arange(start, stop) // 8
        places, at = np.unique(place_of, return_inverse=True)
        place = steps("place", len(places))[at]
        of = (place_of // 40) % streets
        stored[start:stop] = photos(of, place)
        here = chosen[(chosen >= start) & (chosen < stop)] - start
        queries.append(photos(of[here], place[here]))
    stored.flush()
    query_rows = np.concatenate(queries)
    np.save(folder / "queries.npy", query_rows)
    np.save(folder / "truth.npy", _nearest(stored, query_rows, K))


def _nearest(stored: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return (B, k) int64: the rows of highest inner product, block by block in float32."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.zeros((len(queries), k), np.int64)
    for start in range(0, len(stored), 32_768):
        fresh = queries @ stored[start : start + 32_768].astype(np.float32).T
        best = np.argpartition(-fresh, min(k, fresh.shape[1] - 1), axis=1)[:, :k]
        both = np.concatenate([scores, np.take_along_axis(fresh, best, 1)], axis=1)
        numbers = np.concatenate([rows, best + start], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(both, order, 1), np.take_along_axis(numbers, order, 1)
    return rows

"""Codes by the million that follow those of trained weights: a made city, from the statistics of drawn ones.

What a trained SelaVPR++ makes of photos of drawn cities, the values before their signs and the float
descriptors together, is split into what a street, a place and a photo add to a common mean, each a normal
distribution with the covariance that was found (a nested analysis of variance). A made city draws from them
again, eight photos per place and forty places per street; signs give its codes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CodeCity",
    "DescribedPhotos",
    "Statistics",
    "described_cities",
    "described_file",
    "hamming_quantiles",
]

_FLOATS, _LATENT = 192, 256  # principal components: of float descriptors; of them and the values together
_STREET_M, _PAIR_M = 80.0, 8.0
_PHOTOS, _PLACES = 8, 40  # per place and per street
_BLOCK = 1 << 17
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DescribedPhotos:
    """What a model makes of the photos of a city.

    Attributes:
        values: (N, bits), whose signs are the code.
        floats: (N, D), unit norm.
        utm_m: (N, 2).
        heading_deg: (N,).
        database: (N,) bool; the others are queries.
    """

    values: Array
    floats: Array
    utm_m: NDArray[np.float64]
    heading_deg: NDArray[np.float64]
    database: NDArray[np.bool_]

    @classmethod
    def load(cls, path: Path) -> DescribedPhotos:
        """Read what `save` wrote."""
        with np.load(path) as file:
            return cls(**file)

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez(path, **vars(self))  # type: ignore[arg-type]

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows of queries, and of the database photo of the same place and direction of each."""
        asked, stored = np.flatnonzero(~self.database), np.flatnonzero(self.database)
        far = np.linalg.norm(self.utm_m[asked][:, None] - self.utm_m[stored][None], axis=2)
        turned = np.abs((self.heading_deg[asked][:, None] - self.heading_deg[stored] + 180) % 360 - 180)
        far[turned > 30] = np.inf
        near = far.min(axis=1) <= _PAIR_M
        return asked[near], stored[far.argmin(axis=1)[near]]

    def streets(self) -> NDArray[np.int64]:
        """Return a number for each database photo: that of its stretch of a street and direction."""
        rows = self.database
        cells = np.floor(self.utm_m[rows] / _STREET_M).astype(np.int64)
        sides = np.round(self.heading_deg[rows] / 60).astype(np.int64) % 6
        return np.unique(np.column_stack([cells, sides]), axis=0, return_inverse=True)[1].reshape(-1)


class Statistics:
    """The distributions of streets, places and photos, in a common space of fewer dimensions.

    Attributes:
        explained: Share of the variance of values, and of floats, that this space holds.
    """

    def __init__(self, cities: list[DescribedPhotos]) -> None:
        floats = np.concatenate([city.floats for city in cities])
        self.float_mean = floats.mean(axis=0)
        self._reduce = _components(floats, min(_FLOATS, floats.shape[1], len(floats) - 1))
        joint = [np.hstack([city.values, (city.floats - self.float_mean) @ self._reduce]) for city in cities]
        every = np.concatenate(joint)
        self.mean = every.mean(axis=0)
        basis = _components(every, min(_LATENT, every.shape[1], len(every) - 1))
        latent = [(one - self.mean) @ basis for one in joint]
        apart, streets, residuals, shares = [], [], [], []
        for one, city in zip(latent, cities, strict=True):
            asked, stored = city.pairs()
            apart.append(one[asked] - one[stored])
            number, own = city.streets(), one[city.database]
            counts = np.bincount(number)
            means = np.stack([own[number == street].mean(axis=0) for street in range(len(counts))])
            streets.append(means)
            shares.append(1 / counts)
            residuals.append(own - means[number])
        left = np.concatenate(residuals)
        photo = np.cov(np.concatenate(apart).T) / 2
        within = left.T @ left / (len(left) - sum(map(len, streets)))
        street = np.cov(np.concatenate(streets).T) - within * np.concatenate(shares).mean()
        self.bits = cities[0].values.shape[1]
        self.basis = basis.T.astype(np.float32)
        self.steps: dict[str, Array] = {
            "photo": _root(photo),
            "street": _root(street),
            "place": _root(within - photo),
        }
        kept = (np.concatenate(latent) @ basis.T).var(axis=0), every.var(axis=0)
        spread = floats.var(axis=0).sum()
        self.explained = {
            "values": round(float(kept[0][: self.bits].sum() / kept[1][: self.bits].sum()), 4),
            "floats": round(float(kept[0][self.bits :].sum() / spread), 4),
        }

    def described(self, latent: Array) -> tuple[Array, Array]:
        """Return the values, and the floats of unit norm with their mean as one more dimension, of (n, r)."""
        joint = latent @ self.basis + self.mean.astype(np.float32)
        # The mean lies outside of the components in part: as they are, plus its length beside them.
        across = self.float_mean @ self._reduce
        floats = joint[:, self.bits :] + across
        beside = np.float32(np.sqrt(max(0.0, float(self.float_mean @ self.float_mean - across @ across))))
        floats = np.hstack([floats, np.full((len(floats), 1), beside, np.float32)])
        return joint[:, : self.bits], floats / np.linalg.norm(floats, axis=1, keepdims=True)


class CodeCity:
    """A made city, block by block.

    Attributes:
        rows: Number of photos.
    """

    def __init__(self, statistics: Statistics, rows: int, *, seed: int = 0) -> None:
        self.rows, self._seed, self._statistics = rows, seed, statistics
        generator = np.random.default_rng(seed)
        self._streets = self._steps(generator, "street", max(4, rows // (_PHOTOS * _PLACES)))

    def blocks(self) -> Iterator[tuple[NDArray[np.uint8], Array]]:
        """Yield codes (n, bits / 8) and floats (n, D) of unit norm."""
        for start in range(0, self.rows, _BLOCK):
            yield self._coded(self._latent(start, min(self.rows, start + _BLOCK), kind=1))

    def queries(self, count: int) -> tuple[NDArray[np.uint8], Array]:
        """Return further photos of places of the first block, see `query_rows`."""
        latent = self._latent(0, min(self.rows, _BLOCK), kind=2)
        return self._coded(latent[self.query_rows(count)])

    def query_rows(self, count: int) -> NDArray[np.int64]:
        """Return rows of the places that `queries` are photos of."""
        return np.linspace(0, min(self.rows, _BLOCK) - 1, count).astype(np.int64)

    @staticmethod
    def places(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the place of each row."""
        return rows // _PHOTOS

    def _coded(self, latent: Array) -> tuple[NDArray[np.uint8], Array]:
        values, floats = self._statistics.described(latent)
        return np.packbits(values >= 0, axis=1), floats

    def _latent(self, start: int, stop: int, *, kind: int) -> Array:
        places = np.random.default_rng((self._seed, start, 0))
        photos = np.random.default_rng((self._seed, start, kind))
        count = -(-(stop - start) // _PHOTOS)
        place = self._steps(places, "place", count)
        place += self._streets[(start // _PHOTOS + np.arange(count)) // _PLACES % len(self._streets)]
        return np.repeat(place, _PHOTOS, axis=0)[: stop - start] + self._steps(photos, "photo", stop - start)

    def _steps(self, generator: np.random.Generator, level: str, count: int) -> Array:
        root = self._statistics.steps[level]
        return generator.standard_normal((count, len(root)), dtype=np.float32) @ root


def described_file(folder: Path, model: str, city: str) -> Path:
    """Return where `prove_side_path` keeps what a model makes of a city."""
    return folder / f"described-{model}-{city}.npz"


def described_cities(folder: Path) -> list[DescribedPhotos]:
    """Return what trained weights made of drawn cities; SystemExit where they have not."""
    files = sorted(folder.glob(described_file(folder, "codes", "*").name))
    if not files:
        sys.exit(f"{folder} has no trained codes: run `python -m benchmarks.prove_side_path` first")
    return [DescribedPhotos.load(path) for path in files]


def hamming_quantiles(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> list[float]:
    """Return the 5, 25, 50, 75 and 95 % quantiles of Hamming distances between rows of two arrays."""
    apart = np.bitwise_count(one ^ other).sum(axis=1)
    return [round(float(value), 1) for value in np.percentile(apart, (5, 25, 50, 75, 95))]


def _components(rows: Any, count: int) -> Any:
    """Return (D, count): the principal components of (N, D)."""
    _, vectors = np.linalg.eigh(np.cov(rows.T))
    return np.ascontiguousarray(vectors[:, ::-1][:, :count])


def _root(covariance: Any) -> Array:
    """Return the matrix that turns rows of standard normal numbers into rows of this covariance."""
    variances, vectors = np.linalg.eigh(covariance)
    return np.ascontiguousarray((vectors * np.sqrt(variances.clip(min=0))).T.astype(np.float32))

"""A store of random descriptors with the structure of a city, which grows by further photos of its places."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.city_descriptors import KINDS, SHAPES
from storage.card import Card, Preprocessing
from storage.store import Store
from storage.table.schema import row_schema

__all__ = ["IndexedPhotos", "LivingStore", "drawn_id"]

_METRES_PER_PLACE = 20
_COMMIT_ROWS = 50_000
_SHAPE = SHAPES["learned"]


@dataclass(frozen=True)
class IndexedPhotos:
    """Photos that the default model has described, with descriptors that their store has learned.

    Attributes:
        paths: Of the photos.
        descriptors: (N, D) float32 of unit norm, as they are stored.
        card: Of their store, which keeps no local features.
        artifacts: Contents of what the card names.
    """

    paths: list[Path]
    descriptors: NDArray[np.float32]
    card: Card
    artifacts: tuple[bytes, ...]


class LivingStore:
    """A store without local features, and the photos that are drawn for it.

    Descriptors as a store learns them (`city_descriptors`). Places lie on a square grid of 20 m; eight photos
    per place, forty places per street.

    Attributes:
        store: The store.
        width: Dimensions of a descriptor.
        drawn: Number of the next photo.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        *,
        width: int = 512,
        photos: IndexedPhotos | None = None,
        seed: int = 0,
    ) -> None:
        """Draw the city for about `rows` photos; nothing is stored yet.

        Args:
            folder: Of the store.
            rows: How many photos its places are for.
            width: Dimensions of a descriptor.
            photos: Photos that a model has described, in as many dimensions: the store is of this model, the
                kinds of places are these photos, and directions vary as they do.
            seed: Of what is drawn.
        """
        self.store = _create(folder, width, photos)
        self.width = width
        self.drawn = self.store.count
        self._random = np.random.default_rng(seed)
        spread = (1 + np.arange(width, dtype=np.float32)) ** np.float32(-_SHAPE.decay / 2)
        self._spread: NDArray[np.float32] = spread / np.float32(np.linalg.norm(spread))
        if photos is None:
            self._basis = np.linalg.qr(self._random.standard_normal((width, width)))[0].astype(np.float32)
            self._kinds = self._steps("kind", KINDS)
        else:
            self._basis = np.linalg.svd(photos.descriptors)[2]  # their principal axes, the first ones first
            self._kinds = photos.descriptors @ self._basis.T * np.float32(_SHAPE.lengths["kind"])
        self._places = max(64, rows // 8)
        streets = self._steps("street", max(4, self._places // 40))
        districts = self._steps("district", max(2, len(streets) // 20))
        self._streets = streets + districts[self._random.integers(len(districts), size=len(streets))]

    def descriptors(self, places: NDArray[np.int64], *, photo_seed: int) -> NDArray[np.float32]:
        """Return (N, D) float32 of unit norm: a photo of each of these places."""
        unique, at = np.unique(places, return_inverse=True)
        drawn = np.stack([self._place(int(number)) for number in unique])[at]
        drawn += self._streets[places // 40 % len(self._streets)]
        photo = np.random.default_rng((11, photo_seed)).standard_normal(drawn.shape, dtype=np.float32)
        drawn += photo * (self._spread * np.float32(_SHAPE.lengths["photo"]))
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)) @ self._basis

    def grow(self, rows: int, *, last: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Commit so many further photos; return the descriptors of the last commit, (N, D) float32.

        Args:
            rows: How many.
            last: (D,), the descriptor of the very last one; default: drawn like the others.
        """
        drawn = np.empty((0, self.width), np.float32)
        with self.store.lease():
            for start in range(0, rows, _COMMIT_ROWS):
                size = min(_COMMIT_ROWS, rows - start)
                first = self.drawn
                places = (np.arange(first, first + size) // 8) % self._places
                drawn = self.descriptors(places, photo_seed=first)
                if last is not None and start + size == rows:
                    drawn[-1] = last
                self.store.commit(self._rows(first, places, drawn))
                self.drawn = first + size
        return drawn

    def delete_some(self, count: int, *, seed: int) -> None:
        """Remove about so many photos."""
        self.delete(np.random.default_rng(seed).integers(self.drawn, size=count).tolist())

    def delete(self, numbers: Iterable[int]) -> None:
        """Remove photos by their numbers."""
        with self.store.lease():
            self.store.delete([drawn_id(number) for number in numbers])

    def queries(self, count: int, *, seed: int = 1) -> NDArray[np.float32]:
        """Return (count, D) float32: further photos of places in the store."""
        random = np.random.default_rng(seed)
        within = min(self._places, max(1, self.store.count // 8))
        return self.descriptors(random.integers(within, size=count), photo_seed=10**9 + seed)

    def _rows(self, first: int, places: NDArray[np.int64], drawn: NDArray[np.float32]) -> pa.Table:
        size = len(places)
        side = int(np.ceil(np.sqrt(self._places)))
        numbers = np.arange(first, first + size)
        ids = [drawn_id(number) for number in range(first, first + size)]
        flat = pa.array(drawn.astype(np.float16).reshape(-1))
        values: dict[str, Any] = {
            "image_id": ids,
            "uri": [f"/data/photos/{image_id}" for image_id in ids],
            "sha256": [f"{n:064x}" for n in numbers],
            "width": np.full(size, 640),
            "height": np.full(size, 480),
            "lat": 45 + (places // side) * _METRES_PER_PLACE / 111_195,
            "lon": 9 + (places % side) * _METRES_PER_PLACE / 78_626,
            "heading_deg": (numbers * 45.0) % 360,
            "descriptor": pa.FixedSizeListArray.from_arrays(flat, self.width),
            "shard": [""] * size,
            "row": np.zeros(size, np.int32),
        }
        schema = row_schema(self.store.card)
        columns = [
            pa.array(values[field.name], field.type) if field.name in values else pa.nulls(size, field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    def _place(self, number: int) -> NDArray[np.float32]:
        random = np.random.default_rng((7, number))
        kind = self._kinds[random.integers(len(self._kinds))]
        step = self._spread * np.float32(_SHAPE.lengths["place"])
        return np.asarray(kind + random.standard_normal(self.width, dtype=np.float32) * step)

    def _steps(self, level: str, count: int) -> NDArray[np.float32]:
        drawn = self._random.standard_normal((count, self.width), dtype=np.float32)
        return drawn * (self._spread * np.float32(_SHAPE.lengths[level]))


def drawn_id(number: int) -> str:
    """Return the key of a photo by its number."""
    return f"city/street{number % 977:04d}/photo{number:08d}.jpg"


def _create(folder: Path, width: int, photos: IndexedPhotos | None) -> Store:
    if photos is not None:
        assert photos.card.descriptor_dim == width, "the photos' descriptors have another width"
        return Store.create(folder, photos.card, artifacts=photos.artifacts)
    preprocessing = Preprocessing("pil_bilinear", 32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    card = Card("drawn", "0" * 64, preprocessing, width, 2, 2, 4, None)
    card = dataclasses.replace(card, descriptor_dtype="float16")
    return Store.create(folder, card.stored_as("none"))

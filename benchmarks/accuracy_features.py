"""Features and mutual neighbours of photo sets, kept in a scratch folder: variants then cost seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy_photos import read_photo
from benchmarks.accuracy_sets import Looks, PhotoSet
from models.extractor import Extractor
from models.matching.cpu import partners_on_cpu
from models.weights import load_extractor

__all__ = ["Features", "Neighbours", "Scratch"]

_BATCH = 8
MODEL = "efficientnet-lite0"


class Features(NamedTuple):
    """Photos of one side of a set: (N, D) float32 descriptors and (N, H, W, C) float32 local features."""

    descriptors: NDArray[np.float32]
    local: NDArray[np.float32]


class Neighbours(NamedTuple):
    """Mutual nearest neighbours of all pairs of a query and a database photo, N cells each.

    Attributes:
        partner: (Q, K, N) int16, the cell of the database photo that is mutual with each cell of the query,
            in row-major order, or -1.
        similarity: (Q, K, N) float32, the cosine similarity of each cell of the query to its nearest cell.
        grid: H and W of the maps.
    """

    partner: NDArray[np.int16]
    similarity: NDArray[np.float32]
    grid: tuple[int, int]


class Scratch:
    """Reads what earlier runs extracted, and extracts what is missing.

    Args:
        folder: Where the arrays are kept; delete it to extract again.
        image_size: Side of the network's input in pixels.
    """

    def __init__(self, folder: Path, *, image_size: int = 224) -> None:
        self.folder = folder
        self.image_size = image_size
        self._extractor: Extractor | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def extractor(self) -> Extractor:
        """The default model at this input size."""
        if self._extractor is None:
            self._extractor = load_extractor(MODEL, device="cpu", image_size=(self.image_size,) * 2)
        return self._extractor

    def features(self, photos: PhotoSet) -> tuple[Features, Features]:
        """Return the features of a set's database and of its queries."""
        return (
            self._side(photos.database, photos.looks),
            self._side(photos.queries, photos.query_looks),
        )

    def _side(self, paths: Sequence[Path], looks: Looks) -> Features:
        key = _digest([MODEL, self.image_size, *looks, _names(paths)])

        def extract() -> dict[str, NDArray[np.generic]]:
            parts = []
            for at in range(0, len(paths), _BATCH):
                parts.append(
                    self.extractor.extract([read_photo(path, looks) for path in paths[at : at + _BATCH]])
                )
            descriptors, local = (np.concatenate(part) for part in zip(*parts, strict=True))
            return {"descriptors": descriptors, "local": local}

        return Features(**self.kept(f"features-{key}", extract))

    def neighbours(
        self,
        photos: PhotoSet,
        *,
        changed: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
        name: str = "plain",
    ) -> Neighbours:
        """Return the mutual neighbours of every query and every database photo.

        Database features are rounded to float16 first, as a store does.

        Args:
            photos: The set.
            changed: Applied to (N, H, W, C) local features of both sides, such as a whitening; unit norms
                afterwards are its business.
            name: Of that change, for the scratch folder.
        """
        database, queries = (side.local for side in self.features(photos))
        if changed is not None:
            database, queries = changed(database), changed(queries)

        def match() -> dict[str, NDArray[np.generic]]:
            stored = database.astype(np.float16).reshape(len(database), -1, database.shape[-1])
            pairs = [
                partners_on_cpu(torch.from_numpy(query.reshape(-1, query.shape[-1])), stored)
                for query in queries
            ]
            partner = torch.stack([pair[0] for pair in pairs]).to(torch.int16).numpy()
            return {"partner": partner, "similarity": torch.stack([pair[1] for pair in pairs]).numpy()}

        sides = [(_names(photos.database), photos.looks), (_names(photos.queries), photos.query_looks)]
        key = _digest([MODEL, self.image_size, name, *sides])
        height, width = queries.shape[1:3]
        return Neighbours(**self.kept(f"pairs-{key}", match), grid=(height, width))

    def kept(self, name: str, make: Callable[[], dict[str, NDArray[np.generic]]]) -> dict[str, NDArray]:
        """Return arrays of the scratch folder, made if they are missing."""
        folder = self.folder / name
        if not folder.is_dir():
            part = self.folder / f".{name}.part"
            part.mkdir(exist_ok=True)
            for key, array in make().items():
                np.save(part / f"{key}.npy", array)
            part.rename(folder)
        return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}


def _names(paths: Sequence[Path]) -> list[str]:
    return [f"{path.parent}/{path.name}" for path in paths]


def _digest(values: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:16]

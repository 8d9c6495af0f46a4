"""Reads the photos of triplets for training steps: this worker's share, augmented, read ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.augment import augment
from pipelines.training.photos import Photos
from pipelines.training.settings import TrainingSettings
from pipelines.training.worker_group import WorkerGroup

__all__ = ["TripletReader", "Triplets"]

Triplets = NDArray[np.int64]


class TripletReader:
    """Reads the photos of global batches of triplets as one of several workers.

    A batch is (B, 1 + 1 + N) int64, rows of the queries, then of the database, the same on every worker.
    """

    def __init__(
        self, queries: Photos, database: Photos, settings: TrainingSettings, group: WorkerGroup
    ) -> None:
        self._queries, self._database = queries, database
        self._settings, self._group = settings, group
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._ahead.shutdown(cancel_futures=True)

    def read(self, batch: Triplets, *, round_number: int) -> list[NDArray[Any]]:
        """Read this worker's share of a batch.

        Args:
            batch: The batch.
            round_number: Round of mining, which seeds the augmentation.

        Returns:
            Photos (n, 1 + 1 + N, h, w, 3) in parts that are computed in sequence.

        Raises:
            DataRejected: a photo can no longer be decoded.
        """
        return [self._photos(part, round_number) for part in self.shares(batch)]

    def shares(self, batch: Triplets) -> list[Triplets]:
        """Return this worker's share of a batch, in the parts that `read` returns the photos of."""
        share = np.array_split(batch, self._group.size)[self._group.rank]
        return [part for part in np.array_split(share, self._settings.accumulate) if len(part)]

    def read_ahead(self, batches: Sequence[Triplets], *, round_number: int) -> Iterator[list[NDArray[Any]]]:
        """Yield the result of `read` for each batch while the next one is being read."""

        def submit(batch: Triplets) -> Future[list[NDArray[Any]]]:
            return self._ahead.submit(self.read, batch, round_number=round_number)

        following = submit(batches[0])
        for batch in batches[1:]:
            ready = following.result()
            following = submit(batch)
            yield ready
        yield following.result()

    def _photos(self, part: Triplets, round_number: int) -> NDArray[Any]:
        """Return the photos of triplets, (n, 1 + 1 + N, h, w, 3), augmented where the settings ask for it."""
        queries = self._queries.read(part[:, 0])
        others = self._database.read(part[:, 1:].reshape(-1)).reshape(len(part), -1, *queries.shape[1:])
        photos = np.concatenate([queries[:, None], others], axis=1)
        augmentation = self._settings.augmentation
        if augmentation.is_off:
            return photos
        base_seed = (self._settings.seed, round_number)
        augmented = [
            augment(one, augmentation, seed=(*base_seed, int(row[0])))
            for one, row in zip(photos, part, strict=True)
        ]
        return np.stack(augmented)

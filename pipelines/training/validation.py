"""Recall@K on the validation split during training, computed by all workers together.

Each worker keeps the local features of its part of the database in a temporary file of its own, and counts
matches for those candidates only, so neither photos nor features travel; only the queries' features do.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.mutual import mutual_nn_count
from pipelines.training.data import PhotoSet
from pipelines.training.neighbours import find_neighbours
from pipelines.training.worker_group import WorkerGroup
from storage.errors import OutOfSpace

__all__ = ["Recall", "ValidationSet", "recall_of", "validation_set"]

Extract = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]
_BLOCK = 8
_QUERIES_AT_ONCE = 32


@dataclass(frozen=True)
class ValidationSet:
    """The queries of validation and their ground truth.

    Attributes:
        queries: (Q,) int64, rows of the queries.
        database: Number of database photos.
        positives: For each query the database rows within the threshold.
    """

    queries: NDArray[np.int64]
    database: int
    positives: tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Recall:
    """Percent of the queries with a right answer among the first 1 and 5."""

    global_1: float
    global_5: float
    reranked_1: float
    reranked_5: float

    @property
    def score(self) -> tuple[float, float, float]:
        """Order of epochs: re-ranked R@5 as published, ties by both R@1."""
        return self.reranked_5, self.reranked_1, self.global_1


def validation_set(
    queries: PhotoSet, database: PhotoSet, *, threshold_m: float, max_queries: int, seed: int
) -> ValidationSet:
    """Choose the queries by the seed and find the positives of each.

    Raises:
        MiningRejected: coordinates are missing, or no query has a positive.
    """
    near = find_neighbours(queries, database, positive_m=threshold_m, negative_m=threshold_m, negatives=1)
    rows = np.arange(len(queries))
    if max_queries < len(rows):
        rows = np.sort(np.random.default_rng((seed, 1)).choice(rows, max_queries, replace=False))
    positives = tuple(frozenset(near.positives(int(row)).tolist()) for row in rows)
    return ValidationSet(rows, len(database), positives)


def recall_of(
    truth: ValidationSet,
    of_queries: Extract,
    of_database: Extract,
    *,
    group: WorkerGroup,
    candidates: int,
    floors: Sequence[float | None],
) -> list[Recall]:
    """Search and re-rank as the query engine does, and score the answers.

    Args:
        truth: The queries and their positives.
        of_queries: Computes descriptors (n, D) and features (n, H, W, C) float32 of rows (n,) of the queries.
        of_database: The same for the database.
        group: The workers that share the work; each returns the same.
        candidates: How many hits are re-ranked.
        floors: Values of min_similarity for counting mutual neighbours.

    Returns:
        One recall for each floor.

    Raises:
        OutOfSpace: the features of the database do not fit on the temporary disk.
    """
    part = _DatabasePart(truth.database, of_database, group)
    hits = np.zeros((len(floors), 4), np.int64)
    try:
        for start in range(0, len(truth.queries), _QUERIES_AT_ONCE):
            rows = truth.queries[start : start + _QUERIES_AT_ONCE]
            blocks = [of_queries(rows[a:b]) for a, b in group.blocks(len(rows), _BLOCK)]
            described, features = _concatenate(blocks, part.shapes)
            described = group.gather_blocks(described, len(rows), _BLOCK)
            features = group.gather_blocks(features, len(rows), _BLOCK)
            similarity = described @ part.descriptors.T
            top = similarity.sort(dim=1, descending=True, stable=True).indices[:, :candidates].numpy()
            counts = group.sum(part.counts(features, top, floors))
            for i, hit in enumerate(top):
                right = np.array([row in truth.positives[start + i] for row in hit.tolist()])
                for f in range(len(floors)):
                    ranked = right[np.argsort(-counts[f, i].numpy(), kind="stable")]
                    hits[f] += [right[0], right[:5].any(), ranked[0], ranked[:5].any()]
    finally:
        part.close()
    return [Recall(*(round(100 * int(n) / len(truth.queries), 4) for n in row)) for row in hits]


class _DatabasePart:
    """All descriptors, and on disk the features of the database photos of this worker."""

    def __init__(self, count: int, extract: Extract, group: WorkerGroup) -> None:
        self._group = group
        self._blocks = group.blocks(count, _BLOCK)
        self._file = tempfile.TemporaryFile(prefix="placeray-validation-")  # noqa: SIM115 (closed by close)
        self._features: Any = None
        described = []
        rows = torch.zeros(0)
        try:
            for start, end in self._blocks:
                descriptors, features = extract(np.arange(start, end))
                described.append(descriptors.cpu())
                rows = features
                self._write(start, features, count)
            # A worker without a block, of a database smaller than the group, takes the shapes from a photo.
            if not described:
                descriptors, rows = extract(np.arange(1))
                described.append(descriptors[:0])
            own = torch.cat(described)
            self.shapes = tuple(own.shape[1:]), tuple(rows.shape[1:])
            self.descriptors = group.gather_blocks(own, count, _BLOCK)
        except BaseException:
            self.close()
            raise

    def _write(self, start: int, features: Tensor, count: int) -> None:
        # Half precision, as a store holds them.
        cells = features.cpu().numpy().astype(np.float16)
        if self._features is None:
            own = sum(end - start for start, end in self._blocks)
            try:
                os.posix_fallocate(self._file.fileno(), 0, own * cells[0].nbytes)
            except OSError as error:
                raise OutOfSpace(
                    f"validation needs {own * cells[0].nbytes / 2**20:.0f} MiB in {tempfile.gettempdir()} "
                    f"for features of {own} photos ({error}): free some space, set TMPDIR to another disk, "
                    "or give a smaller validation split"
                ) from error
            self._features = np.memmap(self._file, np.float16, "r+", shape=(own, *cells.shape[1:]))
        at = self._place(start)
        self._features[at : at + len(cells)] = cells

    def _place(self, row: int) -> int:
        """Return where a row of this worker lies in its file."""
        return row // _BLOCK // self._group.size * _BLOCK + row % _BLOCK

    def counts(self, features: Tensor, top: NDArray[np.int64], floors: Sequence[float | None]) -> Tensor:
        """Return (F, Q, K) int64: matches of queries with the candidates of this worker, 0 for the others."""
        counts = torch.zeros((len(floors), *top.shape), dtype=torch.int64)
        own = top // _BLOCK % self._group.size == self._group.rank
        for i, hit in enumerate(top):
            columns = np.flatnonzero(own[i])
            if not len(columns):
                continue
            places = [self._place(int(row)) for row in hit[columns]]
            stored = torch.from_numpy(self._features[places]).to(self._group.device)
            query = features[i].to(self._group.device)
            for f, floor in enumerate(floors):
                counts[f, i, columns] = mutual_nn_count(query, stored, min_similarity=floor).cpu()
        return counts

    def close(self) -> None:
        """Free the disk space."""
        self._features = None
        self._file.close()


def _concatenate(
    blocks: list[tuple[Tensor, Tensor]], shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    if not blocks:
        return torch.zeros(0, *shapes[0]), torch.zeros(0, *shapes[1])
    return torch.cat([block[0] for block in blocks]), torch.cat([block[1] for block in blocks])

"""The validation database of one worker: all descriptors, and local features of its own photos on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.aggregation import DESCRIPTOR_DIM, Aggregation
from models.aggregation.sample import sample_size
from models.aggregation.start import MIN_LEARNED, starting_aggregation
from models.matching.mutual import mutual_neighbours
from pipelines.training.worker_group import WorkerGroup
from storage.errors import OutOfSpace

__all__ = ["BLOCK", "DatabasePart", "Extract"]

Extract = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]
BLOCK = 8


class DatabasePart:
    """All descriptors, and on disk the features of the database photos of this worker.

    Args:
        count: Number of photos of the database.
        extract: Computes descriptors (n, D) and features (n, H, W, C) float32 of rows (n,) of it.
        group: The workers.

    Attributes:
        descriptors: (count, D) float32 of the model.
        shapes: Those of one photo's descriptor and features.

    Raises:
        OutOfSpace: the features do not fit on the temporary disk.
    """

    def __init__(self, count: int, extract: Extract, group: WorkerGroup) -> None:
        self._group, self._count = group, count
        self._blocks = group.blocks(count, BLOCK)
        self._file = tempfile.TemporaryFile(prefix="placeray-validation-")  # noqa: SIM115 (closed by close)
        self._features: Any = None
        described = []
        rows = torch.zeros(0)
        try:
            for start, end in self._blocks:
                descriptors, features = extract(np.arange(start, end))
                described.append(descriptors.cpu())
                rows = features
                self._write(start, features)
            # A worker without a block, of a database smaller than the group, takes the shapes from a photo.
            if not described:
                descriptors, rows = extract(np.arange(1))
                described.append(descriptors[:0])
            own = torch.cat(described)
            self.shapes = tuple(own.shape[1:]), tuple(rows.shape[1:])
            self.descriptors = group.gather_blocks(own, count, BLOCK)
        except BaseException:
            self.close()
            raise

    def owns(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether this worker has the features of rows of the database."""
        return np.asarray(rows // BLOCK % self._group.size == self._group.rank)

    def match(self, query: Tensor, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Match a query with rows of the database that this worker owns.

        Args:
            query: (H, W, C) float32.
            rows: (K,) int64.

        Returns:
            Partners (K, H W) int32 and similarities (K, H W) float32 of `mutual_neighbours`, on the CPU.
        """
        if not len(rows):
            cells = self.shapes[1][0] * self.shapes[1][1]
            return torch.zeros((0, cells), dtype=torch.int32), torch.zeros(0, cells)
        stored = torch.from_numpy(self._features[self._places(rows)]).to(self._group.device)
        partner, similarity = mutual_neighbours(query.to(self._group.device), stored)
        return partner.to(torch.int32).cpu(), similarity.cpu()

    def learn(self) -> Aggregation:
        """Learn an aggregation from the database, as a store does; the same on every worker."""
        height, width, channels = self.shapes[1]
        size = min(self._count, sample_size(2 * height * width * channels))
        if size < MIN_LEARNED:
            return starting_aggregation(channels)
        rows = np.unique(np.linspace(0, self._count - 1, size).round().astype(np.int64))
        sample = torch.zeros((len(rows), 2 * height * width * channels), dtype=torch.uint8)
        own = np.flatnonzero(self.owns(rows))
        if len(own):
            features = np.ascontiguousarray(self._features[self._places(rows[own])])
            sample[own] = torch.from_numpy(features.reshape(len(own), -1).view(np.uint8))
        halves = self._group.sum(sample).numpy().view(np.float16).reshape(-1, height, width, channels)
        blocks = [halves[at : at + 64] for at in range(0, len(halves), 64)]
        learned = Aggregation.fit(blocks).to_bytes() if self._group.rank == 0 else b""
        return Aggregation.from_bytes(self._group.from_first(learned))

    def describe(self, aggregation: Aggregation) -> Tensor:
        """Return the (count, 512) float32 descriptors of all photos."""
        own = [
            torch.from_numpy(aggregation.describe(self._features[self._places(np.arange(start, end))]))
            for start, end in self._blocks
        ]
        described = torch.cat([torch.zeros(0, DESCRIPTOR_DIM), *own])
        return self._group.gather_blocks(described, self._count, BLOCK)

    def close(self) -> None:
        """Free the disk space."""
        self._features = None
        self._file.close()

    def _write(self, start: int, features: Tensor) -> None:
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
        at = int(self._places(np.array([start]))[0])
        self._features[at : at + len(cells)] = cells

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where rows of this worker lie in its file."""
        return np.asarray(rows // BLOCK // self._group.size * BLOCK + rows % BLOCK)

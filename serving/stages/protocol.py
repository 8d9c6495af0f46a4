"""The stages of a query as the service sees them, and all of them in one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.stages.messages import Counted, Extracted, IndexStatus, Searched
from serving.stages.search import SearchWorker
from storage.records import ImageRecord

if TYPE_CHECKING:  # both load torch
    from serving.stages.extract import ExtractWorker
    from serving.stages.rerank import RerankWorker

__all__ = ["LocalStages", "Stages"]


class Stages(Protocol):
    """The stages of a query. Errors are those of the workers, or `Refusal`."""

    async def extract(self, image: bytes, *, timeout_s: float) -> Extracted:
        """Decode a photo and run the model."""

    async def search(self, descriptor: NDArray[np.float32], *, k: int, timeout_s: float) -> Searched:
        """Search all parts of the index in one version; `found` is not None."""

    async def count(
        self,
        features: NDArray[np.float32],
        records: Sequence[ImageRecord],
        *,
        min_candidates: int,
        timeout_s: float,
    ) -> Counted:
        """Count mutual nearest neighbours, of at least `min_candidates` before an early stop."""

    async def lines(
        self, features: NDArray[np.float32], record: ImageRecord, *, timeout_s: float
    ) -> list[list[float]]:
        """List matched points."""

    async def status(self) -> IndexStatus:
        """Return the state of the index."""


class LocalStages:
    """All stages in this process (topology `compact`)."""

    def __init__(self, extract: ExtractWorker, search: SearchWorker, rerank: RerankWorker) -> None:
        self.extract = extract.extract
        self.count = rerank.count
        self.lines = rerank.lines
        self._search = search
        self._workers = (extract, search, rerank)

    async def search(self, descriptor: NDArray[np.float32], *, k: int, timeout_s: float) -> Searched:
        """Search the one part there is."""
        return await self._search.search(descriptor, k=k, timeout_s=timeout_s)

    async def status(self) -> IndexStatus:
        """Return the state of the index."""
        return self._search.status

    async def close(self) -> None:
        """Finish what waits and end the threads."""
        for worker in self._workers:
            await worker.close()

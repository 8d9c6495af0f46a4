"""The stages of a query in the process of the ingress (topology `compact`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serving.stages.messages import Descriptor, IndexStatus, Searched
from serving.stages.protocol import VERSION_ATTEMPTS, VERSION_PAUSE_S, moving
from serving.stages.search import SearchWorker
from storage.search.row_filter import RowFilter

if TYPE_CHECKING:  # both load torch
    from serving.stages.extract import ExtractWorker
    from serving.stages.rerank import RerankWorker

__all__ = ["LocalStages"]


class LocalStages:
    """All stages of a query in this process.

    Args:
        extract: Decodes photos and runs the model.
        search: Searches the whole index.
        rerank: Counts mutual nearest neighbours.
    """

    def __init__(self, extract: ExtractWorker, search: SearchWorker, rerank: RerankWorker) -> None:
        self.extract = extract.extract
        self.count = rerank.count
        self.lines = rerank.lines
        self._search = search
        self._workers = (extract, search, rerank)

    async def search(
        self, descriptor: Descriptor, *, k: int, timeout_s: float, within: RowFilter | None = None
    ) -> Searched:
        """Search the whole index, which is one partition here.

        Raises:
            Refusal: no version with descriptors of the same aggregation was loaded in time.
        """
        for _ in range(VERSION_ATTEMPTS):
            searched = await self._search.search(descriptor, k=k, within=within, timeout_s=timeout_s)
            if searched.result is not None:
                return searched
            await asyncio.sleep(VERSION_PAUSE_S)
        raise moving()

    async def status(self) -> IndexStatus:
        """Return the state of the index."""
        return self._search.status

    async def close(self) -> None:
        """Finish queued queries and end the threads."""
        for worker in self._workers:
            await worker.close()

"""Interface of the stages of a query, which `LocalStages` and `RemoteStages` implement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.stages.messages import Counted, Extracted, IndexStatus, Searched
from storage.records import ImageRecord

__all__ = ["Stages"]


class Stages(Protocol):
    """The stages of a query. Errors are those of the workers, or `Refusal`."""

    async def extract(self, image: bytes, *, timeout_s: float) -> Extracted:
        """Decode a photo and run the model."""

    async def search(self, descriptor: NDArray[np.float32], *, k: int, timeout_s: float) -> Searched:
        """Search all partitions of the index in one version; `result` is not None."""

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

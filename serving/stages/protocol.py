"""Interface of the stages of a query, which `LocalStages` and `RemoteStages` implement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.errors import Refusal
from serving.stages.messages import Counted, Descriptor, Extracted, IndexStatus, Searched
from storage.records import ImageRecord
from storage.search.row_filter import RowFilter

__all__ = ["VERSION_ATTEMPTS", "VERSION_PAUSE_S", "Stages", "moving"]

# Partitions of the index load a new version at nearly the same time, within the interval of their checks.
VERSION_ATTEMPTS = 20
VERSION_PAUSE_S = 0.2


def moving() -> Refusal:
    """Return the refusal of a query that met no version that all partitions had loaded."""
    return Refusal(503, "not_ready", "The index is moving to a new version; try again after Retry-After.", 1)


class Stages(Protocol):
    """The stages of a query. Errors are those of the workers, or `Refusal`."""

    async def extract(self, image: bytes, *, timeout_s: float) -> Extracted:
        """Decode a photo and run the model."""

    async def search(
        self, descriptor: Descriptor, *, k: int, timeout_s: float, within: RowFilter | None = None
    ) -> Searched:
        """Search all partitions of the index in one version; `result` is not None.

        Args:
            descriptor: Of the photo.
            k: Number of candidates.
            timeout_s: Time limit for the result.
            within: Which rows may be found; default: all.
        """

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

"""Filter by time of capture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.search.filters.errors import BadFilter

__all__ = ["Taken"]


@dataclass(frozen=True)
class Taken:
    """Rows taken in a span of time.

    Attributes:
        after: Earliest time, inclusive; without a zone it is UTC.
        before: The time from which on rows are left out.

    Raises:
        BadFilter: neither is given, or the span is empty.
    """

    columns: ClassVar[tuple[str, ...]] = ("captured_at",)

    after: datetime | None = None
    before: datetime | None = None

    def __post_init__(self) -> None:
        if self.after is None and self.before is None:
            raise BadFilter("a filter by time needs one: give taken_after, taken_before or both")
        for name in ("after", "before"):
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                object.__setattr__(self, name, value.replace(tzinfo=UTC))
        if self.after is not None and self.before is not None and self.before <= self.after:
            raise BadFilter(
                f"no time is from {self.after.isoformat()} on and before {self.before.isoformat()}: "
                "exchange the two"
            )

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which rows were taken then; those without a time were not.

        Args:
            rows: N stored rows with `columns`.
        """
        stored = rows["captured_at"]
        inside = pc.is_valid(stored)
        if self.after is not None:
            inside = pc.and_(inside, pc.fill_null(pc.greater_equal(stored, _scalar(self.after)), False))
        if self.before is not None:
            inside = pc.and_(inside, pc.fill_null(pc.less(stored, _scalar(self.before)), False))
        return np.asarray(inside.to_numpy(), np.bool_)

    def predicate(self) -> str:
        """Return a SQL condition that holds for these rows and maybe others."""
        return "captured_at IS NOT NULL"


def _scalar(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment.astimezone(UTC), pa.timestamp("us", tz="UTC"))

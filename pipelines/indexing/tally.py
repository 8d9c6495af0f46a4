"""Counts of an index run: extracted, unchanged and rejected images."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["OnProgress", "Tally"]

OnProgress = Callable[[int, int, int], None]


@dataclass
class Tally:
    """Counts rows as they arrive and keeps the rejected ones.

    Attributes:
        total: Number of listed images.
        progress: Called with (done, rejected, total) after each batch.
        extracted: Images that went through the model.
        unchanged: Images that the store already had with the same content.
        reasons: Number of rejected images by reason.
        rejections: image_id, uri, reason and message of each rejected image.
    """

    total: int
    progress: OnProgress
    extracted: int = 0
    unchanged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rejections: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        """Number of rejected images."""
        return len(self.rejections)

    def add(self, rows: pa.Table) -> None:
        """Count the rows of a batch and report progress."""
        rejected = rows.filter(pc.is_valid(rows["rejected"]))
        self.rejections += rejected.select(["image_id", "uri", "rejected", "message"]).to_pylist()
        self.reasons.update(rejected["rejected"].to_pylist())
        self.unchanged += pc.sum(rows["unchanged"]).as_py() or 0
        self.extracted += rows.num_rows - rows["shard"].null_count
        self.progress(self.extracted + self.unchanged + self.rejected, self.rejected, self.total)

    def write_rejections(self, path: Path) -> None:
        """List the rejected images in a CSV file; without any, a file of an earlier run is removed."""
        if not self.rejections:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image_id", "uri", "reason", "message"])
            table.writerows(
                list(row.values()) for row in sorted(self.rejections, key=lambda r: r["image_id"])
            )
        temporary.replace(path)

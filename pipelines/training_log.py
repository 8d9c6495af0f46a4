"""Everything a training run says about itself: a CSV, TensorBoard events, a progress line."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.progress import ProgressLine, clock

__all__ = ["COLUMNS", "TrainingLog", "read_rows"]

COLUMNS = (
    *("kind", "epoch", "round", "step", "loss", "triplet_loss", "local_loss", "images_per_s", "mining_s"),
    *("learning_rate", "gem_p", "recall_global_1", "recall_global_5", "recall_reranked_1"),
    *("recall_reranked_5", "validation_s", "seconds"),
)
_TAGS = {
    "loss": "loss/total",
    "triplet_loss": "loss/triplet",
    "local_loss": "loss/local",
    "images_per_s": "speed/images_per_s",
    "mining_s": "speed/mining_s",
    "gem_p": "model/gem_p",
    "recall_global_1": "recall_global/1",
    "recall_global_5": "recall_global/5",
    "recall_reranked_1": "recall_reranked/1",
    "recall_reranked_5": "recall_reranked/5",
}

Row = Mapping[str, float | str]


class TrainingLog:
    """Writes rows where they belong as they come.

    Args:
        folder: Gets log.csv and tensorboard/.
        line: Shows where training stands.
    """

    def __init__(self, folder: Path, line: ProgressLine) -> None:
        self._csv = folder / "log.csv"
        self._events = folder / "tensorboard"
        self._line = line
        self._writer: Any = None
        self._last: dict[str, float | str] = {}
        self._best = 0.0
        self._total_steps = 0
        self._begun: tuple[int, float] = (0, 0.0)

    def start(self, step: int, total_steps: int) -> None:
        """Training starts, or starts again, after this step: what was logged beyond it is taken back."""
        from tensorboardX import SummaryWriter

        self._total_steps, self._last = total_steps, {}
        kept = [row for row in read_rows(self._csv) if float(row["step"]) <= step] if step else []
        scores = [float(row["recall_reranked_5"]) for row in kept if row["kind"] == "validation"]
        self._best = max(scores, default=0.0)
        temporary = self._csv.with_suffix(".tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(temporary, self._csv)
        self.close()
        self._writer = SummaryWriter(str(self._events), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Write one row of `COLUMNS`; those that do not apply are left out."""
        with open(self._csv, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(dict(row))
        step = int(row["step"])
        for name, tag in _TAGS.items():
            if name in row:
                self._writer.add_scalar(tag, float(row[name]), step)
        self._writer.flush()
        self._show(row)

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _show(self, row: Row) -> None:
        if not self._last:
            self._begun = int(row["step"]), float(row["seconds"])
        self._last |= row
        now = self._last
        step = int(now["step"])
        parts = [f"epoch {int(now['epoch'])}, step {step}/{self._total_steps} at most"]
        if "loss" in now:
            parts.append(
                f"loss {now['loss']:.4f} (triplet {now['triplet_loss']:.4f}, local {now['local_loss']:.4f})"
            )
            parts.append(f"{now['images_per_s']:.1f} images/s")
        if "recall_reranked_5" in now:
            self._best = max(self._best, float(now["recall_reranked_5"]))
            parts.append(f"validation R@5 {now['recall_reranked_5']:.1f}, best {self._best:.1f}")
        done = step - self._begun[0]
        if done:
            rate = (float(now["seconds"]) - self._begun[1]) / done
            parts.append(f"{clock(rate * max(0, self._total_steps - step))} left at most")
        self._line.show(", ".join(parts))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a log back; a last line that was cut off by a crash is left out."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row and None not in row.values() and row["step"].isdigit()]

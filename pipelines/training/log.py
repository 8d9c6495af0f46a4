"""The log of a training run: a CSV, TensorBoard events, a progress bar."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.progress import ProgressBar
from pipelines.training.errors import BadSettings
from storage.durable import explain_write_errors, replace_file

__all__ = ["COLUMNS", "TrainingLog", "read_rows"]

_LOSS_COLUMNS = ("triplet_loss", "local_loss")
_LOSSES = ("triplet", "local")

COLUMNS = (
    *("kind", "epoch", "round", "step", "loss", *_LOSS_COLUMNS, "images_per_s", "mining_s"),
    *("learning_rate", "gem_p", "recall_global_1", "recall_global_5", "recall_reranked_1"),
    *("recall_reranked_5", "validation_s", "seconds"),
)
_TAGS = {
    "loss": "loss/total",
    "images_per_s": "speed/images_per_s",
    "mining_s": "speed/mining_s",
    "gem_p": "model/gem_p",
    "recall_global_1": "recall_global/1",
    "recall_global_5": "recall_global/5",
    "recall_reranked_1": "recall_reranked/1",
    "recall_reranked_5": "recall_reranked/5",
}

Row = Mapping[str, float | str]

_ROW_BYTES = 300
_MAX_VALUE_LENGTH = 1_000


class TrainingLog:
    """Writes the rows of the log as they come.

    Args:
        folder: Gets log.csv and tensorboard/.
        bar: Shows the steps done out of the maximum number of steps.

    The columns triplet_loss and local_loss hold the two losses of the model, whatever their names.
    """

    def __init__(self, folder: Path, bar: ProgressBar) -> None:
        self._csv = folder / "log.csv"
        self._events = folder / "tensorboard"
        self._bar = bar
        self._writer: Any = None
        self._last: dict[str, float | str] = {}
        self._best = 0.0
        self._total_steps = 0
        self._losses = _LOSSES

    def start(self, step: int, total_steps: int, *, resumed: bool, losses: tuple[str, str] = _LOSSES) -> None:
        """Start a log, or resume one after a step; rows beyond it are removed.

        Args:
            step: The last step done.
            total_steps: The maximum number of steps.
            resumed: Whether the log in the folder goes on.
            losses: Names of the two losses, for TensorBoard and the progress bar.

        Raises:
            BadSettings: as `read_rows`.
            OutOfSpace: the disk is full.
        """
        from tensorboardX import SummaryWriter

        self._total_steps, self._last, self._losses = total_steps, {}, losses
        self._bar.restart(total_steps, initial=step)
        # A run that is resumed before its first step has validated already.
        earlier = [row for row in read_rows(self._csv) if float(row["step"]) <= step] if resumed else []
        scores = [float(row["recall_reranked_5"]) for row in earlier if row["kind"] == "validation"]
        self._best = max(scores, default=0.0)
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, COLUMNS)
        writer.writeheader()
        writer.writerows(earlier)
        replace_file(self._csv, content.getvalue().encode())
        self.close()
        self._writer = SummaryWriter(str(self._events), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Write one row with any of `COLUMNS`.

        Raises:
            OutOfSpace: the disk is full.
        """
        with explain_write_errors(self._csv, _ROW_BYTES), open(self._csv, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(dict(row))
        step = int(row["step"])
        tags = {
            column: f"loss/{name.replace(' ', '_').replace('-', '_')}"
            for column, name in zip(_LOSS_COLUMNS, self._losses, strict=True)
        }
        for name, tag in (_TAGS | tags).items():
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
        self._last |= row
        last = self._last
        parts = [f"epoch {int(last['epoch'])}"]
        if "loss" in last:
            named = zip(self._losses, _LOSS_COLUMNS, strict=True)
            losses = ", ".join(f"{name} {last[column]:.4f}" for name, column in named)
            parts.append(f"loss {last['loss']:.4f} ({losses})")
            parts.append(f"{last['images_per_s']:.1f} images/s")
        if "recall_reranked_5" in last:
            self._best = max(self._best, float(last["recall_reranked_5"]))
            parts.append(f"validation R@5 {last['recall_reranked_5']:.1f}, best {self._best:.1f}")
        self._bar.update(int(last["step"]), None, self._total_steps, note=", ".join(parts))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a log back; a last line that was cut off by a crash is left out.

    Raises:
        BadSettings: the file is not a training log, for example after another program has saved it.
    """
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or COLUMNS) != COLUMNS:
                raise ValueError("the columns differ")
            rows = list(reader)
        if any(len(value or "") > _MAX_VALUE_LENGTH for row in rows for value in row.values()):
            raise ValueError("a value is too long")
        complete = [row for row in rows if None not in row and None not in row.values()]
        rows = [row for row in complete if row["step"].isdigit()]
        for row in rows:
            for name in COLUMNS[1:]:
                float(row[name] or 0)
    except (csv.Error, ValueError) as error:
        raise BadSettings(
            f"{path} is not a valid training log ({error}): restore it, or give another --run"
        ) from error
    return rows

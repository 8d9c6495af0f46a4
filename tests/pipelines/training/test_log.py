"""The training log: its CSV, TensorBoard and progress output, and its state after a crash."""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path
from typing import Any

import pytest

from pipelines.progress import ProgressBar
from pipelines.training.errors import BadSettings
from pipelines.training.log import COLUMNS, TrainingLog, read_rows
from storage.errors import OutOfSpace


def row(step: int, loss: float) -> dict[str, Any]:
    return {
        "kind": "step",
        "epoch": 0,
        "round": 0,
        "step": step,
        "loss": loss,
        "triplet_loss": loss / 2,
        "local_loss": loss / 2,
        "images_per_s": 12.0,
        "seconds": step * 2.0,
    }


def validation(step: int, recall: float) -> dict[str, Any]:
    recalls = {"recall_global_1": recall / 2, "recall_reranked_1": recall, "recall_reranked_5": recall}
    return {"kind": "validation", "epoch": 1, "round": 0, "step": step, "seconds": step * 2.0, **recalls}


def logged(folder: Path, *rows: dict[str, Any], after: int | None = None, **more: Any) -> str:
    """Log the rows of a run of 20 steps, new or resumed after a step, and return its progress output."""
    stream = io.StringIO()
    log = TrainingLog(folder, ProgressBar("finetune", unit="steps", stream=stream, log_every_s=0.0))
    log.start(after or 0, 20, resumed=after is not None, **more)
    for one in rows:
        log.write(one)
    log.close()
    return stream.getvalue()


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """Read the scalars of TensorBoard files, newest file last."""
    from tensorboardX.proto.event_pb2 import Event

    values = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            values += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return values


def test_rows_are_written_to_csv_tensorboard_and_progress(tmp_path: Path) -> None:
    output = logged(tmp_path, validation(0, 50.0), row(10, 0.5))
    rows = read_rows(tmp_path / "log.csv")
    assert [(one["kind"], one["step"], one["loss"], one["recall_reranked_5"]) for one in rows] == [
        ("validation", "0", "", "50.0"),
        ("step", "10", "0.5", ""),
    ]
    events = scalars(tmp_path / "tensorboard")
    assert (10, "loss/total", 0.5) in events
    assert (0, "recall_reranked/5", 50.0) in events
    last = output.splitlines()[-1]
    assert "10/20 steps" in last
    assert "loss 0.5000 (triplet 0.2500, local 0.2500)" in last
    assert "12.0 images/s" in last
    assert "R@5 50.0, best 50.0" in last
    assert last.endswith(" left")


def test_losses_have_the_names_of_the_model(tmp_path: Path) -> None:
    output = logged(tmp_path, row(10, 0.5), losses=("multi-similarity", "code gap"))
    assert "loss 0.5000 (multi-similarity 0.2500, code gap 0.2500)" in output
    events = scalars(tmp_path / "tensorboard")
    assert (10, "loss/multi_similarity", 0.25) in events
    assert (10, "loss/code_gap", 0.25) in events
    assert {tag for _, tag, _ in events}.isdisjoint({"loss/triplet", "loss/local"})


def test_resuming_removes_rows_after_the_checkpoint(tmp_path: Path) -> None:
    logged(tmp_path, validation(0, 40.0), row(10, 0.5), row(20, 0.4), validation(20, 60.0))
    output = logged(tmp_path, row(20, 0.3), validation(20, 30.0), after=10)
    rows = read_rows(tmp_path / "log.csv")
    assert [(one["step"], one["loss"]) for one in rows] == [
        ("0", ""),
        ("10", "0.5"),
        ("20", "0.3"),
        ("20", ""),
    ]
    assert "R@5 30.0, best 40.0" in output
    logged(tmp_path)
    assert read_rows(tmp_path / "log.csv") == []


def test_resuming_before_the_first_step_keeps_the_validation(tmp_path: Path) -> None:
    logged(tmp_path, validation(0, 40.0), row(10, 0.5))
    logged(tmp_path, row(10, 0.4), after=0)
    rows = read_rows(tmp_path / "log.csv")
    assert [(one["kind"], one["step"]) for one in rows] == [("validation", "0"), ("step", "10")]


def test_a_truncated_last_line_is_ignored(tmp_path: Path) -> None:
    logged(tmp_path, row(10, 0.5), row(20, 0.4))
    path = tmp_path / "log.csv"
    path.write_bytes(path.read_bytes()[:-30])
    assert [one["step"] for one in read_rows(path)] == ["10"]
    assert read_rows(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    "content",
    [
        b"kind;step\r\nstep;1\r\n",  # as some spreadsheets save it
        b"\xff\xfe\x00",
        ",".join(COLUMNS).encode() + b"\r\nstep,0,0,10,much" + b"," * (len(COLUMNS) - 5) + b"\r\n",
        ",".join(COLUMNS).encode() + b"\r\n" + b"x" * 200_000,
    ],
    ids=["columns", "bytes", "number", "long"],
)
def test_an_invalid_log_is_reported_and_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    limit = csv.field_size_limit(1_000_000)  # reading listings raises it for the whole process
    try:
        with pytest.raises(BadSettings, match="restore it"):
            logged(tmp_path, after=10)
    finally:
        csv.field_size_limit(limit)
    assert path.read_bytes() == content


def test_full_disk_while_logging_is_reported(tmp_path: Path) -> None:
    (tmp_path / "log.csv").symlink_to("/dev/full")
    log = TrainingLog(tmp_path, ProgressBar("finetune", stream=io.StringIO()))
    with pytest.raises(OutOfSpace, match=r"log\.csv"):
        log.write(row(10, 0.5))

"""Reads how a vehicle moved between frames from a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from pipelines.tracks.frames import MAX_FRAMES, BadDrive
from serving.tracks.motion import Motion, at_rate

__all__ = ["read_odometry"]

MAX_BYTES = 32 << 20
MAX_STEP_M = 100_000.0
_NEEDED = "distance_m, or speed_m_per_s and time_s"


def read_odometry(path: str | Path, frames: Sequence[str]) -> list[Motion]:
    """Read one row per frame: what the vehicle did since the frame before.

    Columns: `distance_m`, or `speed_m_per_s` with `time_s`; optional `turn_deg` (to the right since the frame
    before) or `heading_deg` (compass or gyroscope, of which only the differences count), and `frame`, a file
    name, by which rows are put in the order of the frames. Empty values are unknown.

    Args:
        path: The file: UTF-8, separated by commas.
        frames: Paths of the frames.

    Returns:
        A motion per frame; that of the first is not used.

    Raises:
        BadDrive: the file cannot be used; the message names line and column.
    """
    file = Path(path).expanduser()
    rows = _rows(file)
    names = [Path(frame).name for frame in frames]
    if rows and "frame" in rows[0]:
        by_name = {Path(row["frame"] or "").name: row for row in rows}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise BadDrive(f"{file} has no row for the frame {missing[0]}: add it, or leave its frame out")
        rows = [by_name[name] for name in names]
    elif len(rows) != len(frames):
        raise BadDrive(
            f"{file} has {len(rows)} rows for {len(frames)} frames: give one row per frame, or a column frame"
        )
    times, headings = _column(file, rows, "time_s"), _column(file, rows, "heading_deg")
    distances, speeds = _column(file, rows, "distance_m"), _column(file, rows, "speed_m_per_s")
    turns = _column(file, rows, "turn_deg")
    motions = []
    for at in range(len(rows)):
        before = max(0, at - 1)
        seconds = _difference(times[at], times[before])
        if seconds is not None and seconds < 0:
            raise BadDrive(f"{file}: time_s falls at row {at + 1}: order the rows by time")
        distance_m, speed = distances[at], speeds[at]
        if distance_m is None and speed is not None and seconds is not None:
            distance_m = speed * seconds
        turn_deg = turns[at] if turns[at] is not None else _difference(headings[at], headings[before])
        motions.append(_motion(file, at, distance_m, turn_deg, seconds))
    return motions


def _motion(
    file: Path, at: int, distance_m: float | None, turn_deg: float | None, seconds: float | None
) -> Motion:
    if distance_m is not None and not 0 <= distance_m <= MAX_STEP_M:
        raise BadDrive(f"{file}: row {at + 1} travels {distance_m:g} m: give 0 to {MAX_STEP_M:g} m")
    unknown = at_rate(1, 1 / seconds if seconds else 1.0)[0]
    return Motion(distance_m, turn_deg, unknown.usual_m, unknown.fastest_m)


def _rows(file: Path) -> list[dict[str, str | None]]:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BadDrive(f"{file} has more than {MAX_BYTES >> 20} MiB: give one row per frame")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadDrive(f"{file} is not UTF-8 text: save it as CSV in UTF-8") from None
    except OSError as error:
        raise BadDrive(f"{file} cannot be read ({error.strerror}): check the path") from error
    try:
        reader = csv.DictReader(text.splitlines())
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = [dict(row) for _, row in zip(range(MAX_FRAMES + 1), reader, strict=False)]
    except csv.Error as error:
        raise BadDrive(f"{file} is not a CSV file ({error}): separate values by commas") from None
    if "distance_m" not in columns and not {"speed_m_per_s", "time_s"} <= set(columns):
        raise BadDrive(f"{file} needs the columns {_NEEDED}: name them in its first line")
    return rows


def _column(file: Path, rows: Sequence[dict[str, str | None]], name: str) -> list[float | None]:
    values: list[float | None] = []
    for number, row in enumerate(rows, start=1):
        text = (row.get(name) or "").strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise BadDrive(
                f"{file}: row {number} has {text[:40]!r} as {name}: give a number, or leave it empty"
            )
        values.append(value)
    return values


def _difference(value: float | None, before: float | None) -> float | None:
    return None if value is None or before is None else value - before

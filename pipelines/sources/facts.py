"""What a row says beside its position: heading, time and tags, each on its own or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, time, tzinfo
from typing import Any

from pipelines.sources.degrees import read_heading
from pipelines.sources.notes import Note
from pipelines.sources.numbers import is_missing, read_number, shown, tidy
from pipelines.sources.offsets import read_offset
from pipelines.sources.paths import clean
from pipelines.sources.times import AmbiguousTime, read_time

__all__ = ["read_captured_at", "read_heading_deg", "read_tags"]

MAX_TAGS, MAX_TAG_LENGTH, MAX_TAGS_LENGTH = 100, 200, 10_000
_DIGITS_ONLY = re.compile(r"\d{3,6}", re.ASCII)
_CLOCK_ONLY = re.compile(
    r"\d{1,2}:\d{2}(:\d{2})?([.,]\d+)?(\s*[ap]m)?(\s*(z|[+-]\d{2}:?\d{2}))?", re.IGNORECASE
)


def read_heading_deg(value: Any, notes: list[Note]) -> float | None:
    """Return a heading, or None with a note where there is a value that cannot be used."""
    if is_missing(value):
        return None
    try:
        return read_heading(value)
    except ValueError as error:
        notes.append(Note("bad_heading", f"heading_deg {shown(value)} {error}"))
        return None


def read_captured_at(values: Mapping[str, Any], notes: list[Note]) -> datetime | None:
    """Return the time of capture, or None with a note where there is a value that cannot be used.

    Args:
        values: With captured_at, and a date, its parts or a UTC offset that stand in columns of their own.
        notes: Gets a note.
    """
    value, day = values.get("captured_at"), _day(values)
    if is_missing(value):
        value = day
    elif not is_missing(day):
        text = value.isoformat() if isinstance(value, time) else tidy(str(value))
        if _DIGITS_ONLY.fullmatch(text):  # 93000 is half past nine
            text = text.zfill(4 if len(text) < 5 else 6)
        if _CLOCK_ONLY.fullmatch(text) or _DIGITS_ONLY.fullmatch(text):
            value = f"{day} {text}"
    if is_missing(value):
        return None
    zone = _zone(values.get("capture_offset"), notes)
    try:
        return read_time(value, zone)
    except ValueError as error:
        reason = "ambiguous_time" if isinstance(error, AmbiguousTime) else "bad_time"
        notes.append(Note(reason, f"captured_at {shown(value)} {error}"))
        return None


def _day(values: Mapping[str, Any]) -> Any:
    """Return the date of columns of its own: whole, or as year and month with or without a day."""
    day, year, month = (values.get(name) for name in ("capture_date", "capture_year", "capture_month"))
    if isinstance(day, datetime):
        return day.date()
    try:
        parts = [read_number(part) for part in (year, month, day) if not is_missing(part)]
    except ValueError:
        return day
    if is_missing(year) or (is_missing(month) and not is_missing(day)) or any(part % 1 for part in parts):
        return day
    return "-".join(f"{int(part):02}" for part in parts)


def read_tags(value: Any) -> str | None:
    """Return tags as a JSON array of strings, from a list, a JSON array, or text with separators."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        value = _split_tags(value[:MAX_TAGS_LENGTH])
    elif value is not None and is_missing(value):
        return None
    names = value if isinstance(value, list) else [value]
    tags = [clean(str(name)).strip()[:MAX_TAG_LENGTH] for name in names if name is not None]
    unique = list(dict.fromkeys(filter(None, tags)))[:MAX_TAGS]
    return json.dumps(unique, ensure_ascii=False) if unique else None


def _split_tags(text: str) -> list[Any]:
    text = text.strip()
    if text.startswith("["):
        try:
            tags = json.loads(text)
        except (ValueError, RecursionError):
            tags = [tag.strip(" '\"") for tag in text.strip("[]").split(",")]
        return tags if isinstance(tags, list) else [text]
    if text.startswith("{") and text.endswith("}") and ":" not in text:  # an array of PostgreSQL
        text = text[1:-1]
    return [tag.strip(" '\"") for tag in re.split(r"[;|,]", text)]


def _zone(value: Any, notes: list[Note]) -> tzinfo:
    """Return the time zone of a column of its own, for times that name none; UTC where it is unknown."""
    if is_missing(value):
        return UTC
    try:
        return read_offset(str(value))
    except ValueError as error:
        notes.append(Note("bad_offset", f"{shown(value)} {error}: the time is read as UTC"))
        return UTC

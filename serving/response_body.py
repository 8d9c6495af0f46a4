"""Reads responses of a service: JSON, the reason and message of an error, and Retry-After."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

__all__ = ["error_of", "parse_json", "retry_after_seconds"]

MAX_MESSAGE_CHARACTERS = 300


def parse_json(content: bytes) -> Any:
    """Return JSON as Python values; None for anything else."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # the latter for a million brackets
        return None


def error_of(content: bytes) -> tuple[str, str]:
    """Return reason and message of an error response, safe for a terminal; empty where it has none."""
    try:
        error = parse_json(content)["error"]
        return _plain(error["reason"]), _plain(error["message"])
    except (KeyError, TypeError):
        return "", ""


def _plain(text: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(text)[:MAX_MESSAGE_CHARACTERS])


def retry_after_seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None where it is neither."""
    try:
        value = float(retry_after or "")
    except ValueError:
        return _seconds_until(retry_after or "")
    return value if math.isfinite(value) and value >= 0 else None


def _seconds_until(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, round((when - datetime.now(UTC)).total_seconds()))

"""Numbers as people and programs write them, and values that mean "missing"."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["is_missing", "read_number", "shown"]

# What spreadsheets, pandas, R, SQL and exiftool write where a number or a time is missing.
MISSING = frozenset(
    {"", "-", "--", "?", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none", "nil", "undef", "unknown"}
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNIT = re.compile(r"\s*(°|º|deg|degrees?|m|met(?:er|re)s?)$", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(([., '\u00a0\u202f])\d{3})(\2\d{3})*", re.ASCII)
MAX_NUMBER_LENGTH = 60


def is_missing(value: Any) -> bool:
    """Whether a value of a number or a time is missing: null, NaN, empty, or a word for it such as NA."""
    if isinstance(value, str):
        return len(value) < MAX_NUMBER_LENGTH and value.strip().lower() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_number(value: Any, *, thousands: bool = False) -> float:
    """Return a number, also with a decimal comma, a unit or separated thousands.

    Args:
        value: A number, or its text.
        thousands: Whether a single comma or point before three digits separates thousands, as in the metres
            `500,000`; otherwise it is a decimal comma or point, as in the degrees `48,137`.

    Raises:
        ValueError: it is not a finite number.
    """
    if isinstance(value, bool):
        raise ValueError("is not a number")
    if isinstance(value, str):
        value = _plain_number(value, thousands)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def shown(value: Any) -> str:
    """Return a value as messages show it."""
    text = value[: MAX_NUMBER_LENGTH + 1] if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_NUMBER_LENGTH else f"{text[: MAX_NUMBER_LENGTH - 3]}..."


def _plain_number(text: str, thousands: bool) -> str:
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("is not a number")
    text = _UNIT.sub("", text.strip().replace("\u2212", "-"))
    points, commas = text.count("."), text.count(",")
    if points and commas:
        decimal = max("." + ",", key=text.rfind)
        whole, _, fraction = text.rpartition(decimal)
        if not _GROUPED.fullmatch(whole):
            raise ValueError("is not a number")
        text = re.sub(r"[.,]", "", whole) + "." + fraction
    elif (grouped := _GROUPED.fullmatch(text)) and (thousands or grouped[3] or grouped[2] not in ".,"):
        text = re.sub(r"[^\d+-]", "", text)
    elif commas == 1:
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        raise ValueError("is not a number")
    return text

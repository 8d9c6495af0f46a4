"""Numbers as people and programs write them, and values that mean "missing"."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

__all__ = ["MAX_NUMBER_LENGTH", "is_missing", "read_number", "shown", "tidy"]

# What spreadsheets, pandas, R, SQL and exiftool write where a number or a time is missing.
MISSING = frozenset(
    [
        *("", "-", "--", "---", ".", "..", "?", "0/0", "[]", "{}", "\\n"),
        *("na", "n/a", "n.a.", "n/d", "#n/a", "#na", "<na>", "-nan", "nan", "nat", "#n/a n/a"),
        *("1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind", "null", "(null)", "<null>", "nil"),
        *("none", "(none)", "undef", "undefined", "unknown", "missing", "no data"),
    ]
)
# What spreadsheets and web pages leave around a value: quotes, marks without a width or of direction.
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\uff0d", "-"))
_RATIO = re.compile(r"([+-]?\d{1,20})\s*/\s*(\d{1,20})", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNIT = re.compile(r"\s*(°|º|deg|degrees?|m|met(?:er|re)s?)$", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(([., '\u00a0\u202f])\d{3})(\2\d{3})*", re.ASCII)
_SPACED = re.compile(r"[+-]?\d{1,3}([ '])\d{3}(?:\1\d{3})*[.,]\d+", re.ASCII)
MAX_NUMBER_LENGTH = 60


def tidy(text: str) -> str:
    """Return a value's text without what is not seen, quotes around it, and the kinds of space and dash."""
    text = _UNSEEN.sub("", text).translate(_DASHES).strip().strip("\"'`\0")
    return " ".join(text.split())


def is_missing(value: Any) -> bool:
    """Whether a value of a number or a time is missing: null, NaN, empty, or a word for it such as NA."""
    if isinstance(value, str):
        return len(value) < MAX_NUMBER_LENGTH and tidy(value).lower() in MISSING
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


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
    text = _UNIT.sub("", tidy(text))
    if ratio := _RATIO.fullmatch(text):
        if not int(ratio[2]):
            raise ValueError("is not a finite number")
        return repr(int(ratio[1]) / int(ratio[2]))
    if spaced := _SPACED.fullmatch(text):
        text = text.replace(spaced[1], "")
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

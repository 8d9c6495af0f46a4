"""Time zones as listings name them: UTC offsets, names of the time zone database, common abbreviations."""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["ABBREVIATIONS", "read_offset"]

# Hours from UTC. Abbreviations with several meanings, as IST and BST, are left out.
ABBREVIATIONS = {
    "z": 0,
    "utc": 0,
    "gmt": 0,
    "wet": 0,
    "west": 1,
    "cet": 1,
    "cest": 2,
    "eet": 2,
    "eest": 3,
    "msk": 3,
    "jst": 9,
    "kst": 9,
    "aest": 10,
    "aedt": 11,
    "nzst": 12,
    "nzdt": 13,
    # RFC 5322, section 4.3
    "est": -5,
    "edt": -4,
    "cst": -6,
    "cdt": -5,
    "mst": -7,
    "mdt": -6,
    "pst": -8,
    "pdt": -7,
}
MAX_LENGTH = 60
MAX_HOURS = 14
_NUMBER = re.compile(r"[+-]?\d{1,5}(?:\.\d{1,3})?", re.ASCII)
_OFFSET = re.compile(r"(?:utc|gmt)?\s*([+-])(\d{1,2})(?::?(\d{2}))?", re.ASCII)
_NAME = re.compile(r"[a-z_]+(?:/[a-z0-9_+-]+){1,2}", re.ASCII | re.IGNORECASE)


def read_offset(text: str) -> tzinfo:
    """Return a time zone: `+02:00`, `UTC+2`, `Z`, `CEST`, `Europe/Berlin`, a number of hours or seconds.

    Raises:
        ValueError: it is not one.
    """
    text = text.strip()
    lower = text.lower()
    if lower in ABBREVIATIONS:
        hours = ABBREVIATIONS[lower]
        return timezone(timedelta(hours=hours)) if hours else UTC
    if len(text) <= MAX_LENGTH and _NAME.fullmatch(text):
        try:
            return ZoneInfo(text)
        except (ZoneInfoNotFoundError, OSError, ValueError):
            raise ValueError("is not a time zone") from None
    match = _OFFSET.fullmatch(lower)
    if not match and _NUMBER.fullmatch(text):
        number = float(text)
        seconds = number * 3600 if abs(number) <= MAX_HOURS else number
        if abs(seconds) > MAX_HOURS * 3600 or seconds % 900:
            raise ValueError("is not a UTC offset")
        return timezone(timedelta(seconds=seconds))
    if not match or int(match[2]) > MAX_HOURS or int(match[3] or 0) > 59:
        raise ValueError("is not a UTC offset")
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    return timezone(-offset if match[1] == "-" else offset)

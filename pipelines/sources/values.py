"""Values of a listing or a file name: numbers within their range, UTM zones, times."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

__all__ = ["NUMBER_RANGES", "parse_number", "parse_time", "parse_zone"]

NUMBER_RANGES = {
    "lat": (-90.0, 90.0),
    "lon": (-180.0, 180.0),
    "utm_e": (-1e7, 1e7),
    "utm_n": (-1e7, 2e7),
    "heading_deg": (-360.0, 360.0),
}


def parse_number(name: str, value: Any) -> float | None:
    """Return the number of a column of `NUMBER_RANGES`, or None where there is none.

    Raises:
        ValueError: it is not a number, or out of range.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} {value!r} is not a number") from None
    low, high = NUMBER_RANGES[name]
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{name} {value!r} is outside {low:g} to {high:g}")
    return number % 360.0 if name == "heading_deg" else number


def parse_zone(text: str) -> str | None:
    """Return a UTM zone such as `33U` or `33`, or None where the text is not one."""
    match = re.fullmatch(r"\s*0?([1-9]|[1-5][0-9]|60)\s*([C-HJ-NP-Xc-hj-np-x]?)\s*", text)
    return match[1] + match[2].upper() if match else None


def parse_time(value: Any) -> datetime | None:
    """Read ISO 8601, seconds since 1970, or YYYYMM[DD[HHMMSS]]; a time without a zone is taken as UTC.

    Raises:
        ValueError: it is none of these.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    time: datetime | None = None
    if isinstance(value, datetime):
        time = value
    elif isinstance(value, int | float) or re.fullmatch(r"\d{9,10}(\.\d*)?", value.strip()):
        try:
            time = datetime.fromtimestamp(float(value), UTC)
        except (OverflowError, OSError, ValueError):
            raise ValueError(f"captured_at {value!r} is not a time") from None
    elif digits := re.fullmatch(r"(\d{4})(\d{2})(\d{2})?_?(\d{6})?", value.strip()):
        text = digits[1] + digits[2] + (digits[3] or "01") + (digits[4] or "000000")
        time = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    else:
        try:
            time = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"captured_at {value!r} is not a time: use ISO 8601") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)

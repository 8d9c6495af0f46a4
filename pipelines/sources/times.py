"""Times of capture in the shapes that listings, cameras and file names use.

Digits alone are read by their number, whatever the type of the column:

| digits | meaning |
|---|---|
| 4, 6, 8 | year, year and month, date |
| 9, 10 | seconds since 1970 |
| 12, 14, 17 | date and time to the minute, second, millisecond, where they form one |
| 12, 13 / 16 / 19 | milliseconds / microseconds / nanoseconds since 1970 |
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from pipelines.sources.numbers import tidy
from pipelines.sources.offsets import read_offset

__all__ = ["AmbiguousTime", "read_time"]

YEARS = (1826, 2100)  # from the first photograph on
FIRST_OF_CENTURY = 69  # of two digits; as strptime() of POSIX
MAX_LENGTH = 60
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {9: 1, 10: 1, 12: 1_000, 13: 1_000, 16: 10**6, 19: 10**9}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_CLOCK = (
    r"(?P<H>\d{1,2})(?:(?P<c>[:h._-]?)(?P<M>\d{2})(?:(?:(?P=c)|m)(?P<S>\d{2}))?s?(?:[.,:_](?P<f>\d{1,9}))?\.?"
    r"|(?=\s?[ap]\.?\s?m))\s*(?P<half>[ap]\.?\s?m\.?)?\s*(?P<zone>(?:utc|gmt)?\s*[+-]\d{1,2}(?::?\d{2})?|"
    r"(?!dst)[a-z]{1,5}|[a-z_]+/[a-z0-9_/+-]+)?(?:\s*dst)?(?:\s*\[(?P<region>.*)\]|\s*\(.*\))?"
)
_JOIN = r"(?:[\sT_,@-]+|\s+at\s+|:(?=\d\d:))"
_WEEKDAY = r"(?:[a-z]{3,9},?\s+)?"
_SHAPES = [
    re.compile(pattern + rf"(?:{_JOIN}{_CLOCK})?", re.ASCII | re.IGNORECASE)
    for pattern in (
        r"(?P<Y>\d{4})(?P<sep>[-:/._ ])(?P<m>\d{1,2})(?P=sep)(?P<d>\d{1,2})",
        r"(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
        r"(?P<Y>\d{4})-(?P<j>\d{3})",
        r"(?P<a>\d{1,2})(?P<sep>[-/.])(?P<b>\d{1,2})(?P=sep)(?P<Y>\d{4}|\d{2})",
        _WEEKDAY
        + r"(?P<d>\d{1,2})(?:st|nd|rd|th)?[-\s./]+(?P<name>[a-z]{3,9})\.?[-\s,./]+(?P<Y>\d{4}|\d{2})",
        _WEEKDAY + r"(?P<name>[a-z]{3,9})\.?\s+(?P<d>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<Y>\d{4})",
        r"(?P<Y>\d{4})[-\s/](?P<name>[a-z]{3,9})[-\s/](?P<d>\d{1,2})",
    )
] + [re.compile(r"(?P<Y>\d{4})[-:/._](?P<m>\d{1,2})", re.ASCII)]
# As asctime() writes: Mon Jul  1 10:00:00 2019.
_ASCTIME = re.compile(
    rf"(?:[a-z]{{3}}\s+)?(?P<name>[a-z]{{3}})\s+(?P<d>\d{{1,2}})\s+{_CLOCK}\s+(?P<Y>\d{{4}})", re.I | re.ASCII
)
_DIGITS = re.compile(r"\d+\.?0*|\d{9,}[.,]\d+|\d(\.\d*)?e\+?\d{1,2}", re.ASCII | re.IGNORECASE)
# As in 2019年07月01日 10時00分.
_CJK = str.maketrans("年月日時时分秒", "-- ::: ")


class AmbiguousTime(ValueError):
    """A date whose day and month cannot be told apart."""


def read_time(value: Any, zone: tzinfo = UTC) -> datetime:
    """Return a time in UTC.

    Args:
        value: A date, a time, a number or text; integers and floats follow the rules for digits.
        zone: Of times that name none themselves.

    Raises:
        AmbiguousTime: day and month may be exchanged, such as 01/07/2019.
        ValueError: it is not a time, or not between 1826 and 2100.
    """
    try:
        time = _read(value, zone)
        if not YEARS[0] <= time.year <= YEARS[1]:
            raise ValueError(f"is not between {YEARS[0]} and {YEARS[1]}")
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not a time") from None


def _read(value: Any, zone: tzinfo) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("is not a time")
    if isinstance(value, str):
        text = tidy(value)
        text = text if text.isascii() else tidy(text.translate(_CJK)).rstrip(":")
    else:
        text = repr(value) if isinstance(value, float) else str(value)
    if len(text) > MAX_LENGTH:
        raise ValueError("is not a time")
    if _DIGITS.fullmatch(text):
        return _read_digits(text.replace(",", "."), zone)
    for shape in (*_SHAPES, _ASCTIME):
        if match := shape.fullmatch(text):
            return _build(match.groupdict(), zone)
    try:  # the week dates of ISO 8601
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a time: write 2019-07-01T10:00:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=zone)


def _read_digits(text: str, zone: tzinfo) -> datetime:
    number = Decimal(text)
    whole = int(number)
    digits = str(whole)
    known = len(digits) in (4, 6, 8, 12, 14, 17)
    if known:
        parts = [digits[:4], *(digits[start : start + 2] for start in range(4, min(len(digits), 14), 2))]
        numbers = [int(part) for part in parts] + [1] * (3 - len(parts))
        micro = int(digits[14:]) * 1000 if len(digits) == 17 else int((number - whole) * 10**6)
        try:
            time = datetime(*numbers[:6], tzinfo=zone)  # type: ignore[misc, arg-type]
            if YEARS[0] <= time.year <= YEARS[1]:
                return time.replace(microsecond=micro) if len(digits) >= 14 else time
        except ValueError:
            pass
    if len(digits) not in UNITS:
        raise ValueError("is neither a date nor seconds or milliseconds since 1970")
    return EPOCH + timedelta(microseconds=int(number * 10**6 / UNITS[len(digits)]))


def _build(part: dict[str, str | None], zone: tzinfo) -> datetime:
    hour, minute, second = (int(part.get(name) or 0) for name in "HMS")
    if half := part.get("half"):
        after_noon = half[0] in "pP"
        if hour > 12 and not after_noon:
            raise ValueError("is not a time")
        hour = hour if hour > 12 else hour % 12 + 12 * after_noon  # 13:00 PM is written as well
    micro = int((part.get("f") or "0").ljust(6, "0")[:6])
    if named := part.get("zone") or part.get("region"):
        zone = read_offset(named)
    extra = timedelta()
    if second == 60 or (hour, minute, second) == (24, 0, 0):  # a leap second, midnight
        extra = timedelta(seconds=1) if second == 60 else timedelta(days=1)
        hour, second = hour % 24, min(second, 59)
    year, month, day = _day(part)
    return datetime(year, month, day, hour, minute, second, micro, zone) + extra


def _day(part: dict[str, str | None]) -> tuple[int, int, int]:
    """Return year, month and day."""
    year = int(part["Y"] or 0)
    short = len(part["Y"] or "") == 2
    if part.get("a"):
        first, second = int(part["a"] or 0), int(part["b"] or 0)
        if short and first > 12 and 1 <= year <= 31:
            raise AmbiguousTime("may begin with the day or the year: write 2019-07-01")
        month, day = _month_and_day(first, second)
    elif name := part.get("name"):
        if name[:3].lower() not in MONTHS:
            raise ValueError("is not a time: the month is unknown")
        month, day = MONTHS.index(name[:3].lower()) + 1, int(part["d"] or 0)
    elif part.get("j"):
        first_day = date(year, 1, 1) + timedelta(days=int(part["j"] or 0) - 1)
        if first_day.year != year:
            raise ValueError("is not a day of that year")
        month, day = first_day.month, first_day.day
    else:
        month, day = int(part["m"] or 0), int(part.get("d") or 1)
    if short:
        year += 1900 if year >= FIRST_OF_CENTURY else 2000
    return year, month, day


def _month_and_day(first: int, second: int) -> tuple[int, int]:
    if first > 12 or first == second:
        return second, first
    if second > 12:
        return first, second
    raise AmbiguousTime("may be day/month or month/day: write 2019-07-01")

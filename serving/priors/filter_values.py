"""Filters and priors as they are given on a command line or in a request: numbers and texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from serving.priors.soft_prior import SoftPrior
from storage.search.filters import BadFilter, Heading, Near, Tagged, Taken, all_of, inside_geojson
from storage.search.row_filter import RowFilter

__all__ = [
    "HEADING_TOLERANCE_DEG",
    "MAX_TAGS",
    "POSITION",
    "PRIOR",
    "FilterValues",
    "read_moment",
    "read_numbers",
    "read_prior",
    "unreadable",
]

HEADING_TOLERANCE_DEG = 45.0
MAX_TAGS = 20
POSITION = "a position such as 48.137,11.575"
PRIOR = "a prior such as 48.137,11.575,200"
_MAX_LENGTH = 100
_YEAR_MONTH = re.compile(r"(\d{4})(?:-(\d{2}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class FilterValues:
    """What a query may be narrowed to; all of it holds together.

    Attributes:
        near: `LAT,LON` in degrees, with `radius_m`.
        radius_m: In metres.
        within: GeoJSON with polygons.
        heading: Direction of view in degrees.
        heading_tolerance: Largest difference to either side; default: `HEADING_TOLERANCE_DEG`.
        taken_after: Earliest time, see `read_moment`.
        taken_before: The time from which on photos are left out.
        tags: A photo must have all of them.
    """

    near: str | None = None
    radius_m: float | None = None
    within: str | None = None
    heading: float | None = None
    heading_tolerance: float | None = None
    taken_after: str | None = None
    taken_before: str | None = None
    tags: tuple[str, ...] = ()

    def row_filter(self, named: Callable[[str], str] = str) -> RowFilter | None:
        """Return the filter; None where nothing is given.

        Args:
            named: How a message names an attribute, such as `--radius-m`.

        Raises:
            BadFilter: a value cannot be read or is out of range, or one is missing beside another.
        """
        return all_of(self._filters(named))

    def _filters(self, named: Callable[[str], str]) -> Iterator[RowFilter]:
        for name, other in (("near", "radius_m"), ("radius_m", "near"), ("heading_tolerance", "heading")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise BadFilter(f"{named(name)} goes with {named(other)}: add it")
        if self.near is not None and self.radius_m is not None:
            lat, lon = read_numbers(self.near, 2, POSITION)
            yield Near(lat, lon, self.radius_m)
        if self.within is not None:
            yield inside_geojson(self.within)
        if self.heading is not None:
            tolerance = self.heading_tolerance
            yield Heading(self.heading, HEADING_TOLERANCE_DEG if tolerance is None else tolerance)
        if self.taken_after is not None or self.taken_before is not None:
            after, before = (
                None if text is None else read_moment(text) for text in (self.taken_after, self.taken_before)
            )
            yield Taken(after, before)
        if len(self.tags) > MAX_TAGS:
            raise BadFilter(f"{len(self.tags)} tags are given, {MAX_TAGS} are read at most: leave some out")
        yield from map(Tagged, dict.fromkeys(self.tags))


def read_prior(text: str) -> SoftPrior:
    """Return the prior of `LAT,LON,SIGMA_M`.

    Raises:
        BadFilter: it cannot be read, or a value is out of range.
    """
    return SoftPrior(*read_numbers(text, 3, PRIOR))


def read_numbers(text: str, count: int, what: str) -> list[float]:
    """Return so many numbers with commas between them.

    Raises:
        BadFilter: the text is something else; `what` says in the message what is expected.
    """
    parts = text[:_MAX_LENGTH].split(",")
    try:
        if len(parts) != count or len(text) > _MAX_LENGTH:
            raise ValueError
        return [float(part) for part in parts]
    except ValueError:
        raise unreadable(text, what) from None


def unreadable(text: str, what: str) -> BadFilter:
    """Return the error of a text that cannot be read; `what` says what is expected."""
    return BadFilter(f"{text[:40]!r} cannot be read: give {what}")


def read_moment(text: str) -> datetime:
    """Return a time from ISO 8601, or the beginning of a year or a month; without a zone it is UTC.

    Raises:
        BadFilter: the text is something else.
    """
    try:
        if year_month := _YEAR_MONTH.fullmatch(text):
            return datetime(int(year_month[1]), int(year_month[2] or 1), 1, tzinfo=UTC)
        moment = datetime.fromisoformat(text[:_MAX_LENGTH])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadFilter(
            f"{text[:40]!r} is not a time: give one such as 2019, 2019-07-01 or 2019-07-01T12:00:00+02:00"
        ) from None

"""Lists of reviewed photos, as the review page downloads them or as anybody may have changed them."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

from pipelines.locate.errors import BadReview

__all__ = ["Accepted", "read_accepted"]

_MAX_BYTES, _MAX_ROWS, _MAX_TEXT = 64 << 20, 1_000_000, 65_536
_NEEDED = ("image", "decision", "lat", "lon")


@dataclass(frozen=True)
class Accepted:
    """A photo whose place was accepted.

    Attributes:
        image: Its name relative to the folder.
        folder: As the list names it; empty: not at all.
        sha256: Digest of the file that was reviewed; empty: not known.
        lat: Latitude in degrees; None where the list has none.
        lon: Longitude in degrees, likewise.
        radius_m: That holds the truth with 90 %, or None.
    """

    image: str
    folder: str
    sha256: str
    lat: float | None
    lon: float | None
    radius_m: float | None


def read_accepted(path: str | Path) -> list[Accepted]:
    """Return the accepted photos of a list.

    Raises:
        BadReview: it cannot be read, or lacks a column.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise BadReview(f"{path} is larger than {_MAX_BYTES} bytes: give the list of a review page")
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        names = rows.fieldnames or ()
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise BadReview(f"{path} has no column {missing[0]}: give the list of a review page")
        checked = (_checked(row, path) for row, _ in zip(rows, range(_MAX_ROWS), strict=False))
        return [_accepted(row) for row in checked if _is_accepted(row)]
    except OSError as error:
        raise BadReview(f"{path} cannot be read ({error.strerror}): give the list of a review page") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadReview(f"{path} is not a CSV file ({error}): give the list of a review page") from None


def _checked(row: dict[str, str | None], path: str | Path) -> dict[str, str | None]:
    """Return a row; one that spans lines, since a quote is left open, would hide those that it swallows."""
    if any(len(value or "") > _MAX_TEXT for value in row.values()):
        raise BadReview(f"{path} has a longer value than {_MAX_TEXT}: give the list of a review page")
    return row


def _is_accepted(row: dict[str, str | None]) -> bool:
    return (row.get("decision") or "").strip().lower() == "accepted"


def _accepted(row: dict[str, str | None]) -> Accepted:
    text = {name: value or "" for name, value in row.items() if isinstance(name, str)}
    lat, lon = _number(text["lat"], 90.0), _number(text["lon"], 180.0)
    return Accepted(
        image=text["image"],
        folder=text.get("folder", ""),
        sha256=text.get("sha256", "").strip().lower(),
        lat=lat,
        lon=lon,
        radius_m=_number(text.get("radius_m", ""), 1e7),
    )


def _number(text: str, limit: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= limit else None

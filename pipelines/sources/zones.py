"""UTM zones: a number with a band letter, with a hemisphere or with neither, or an EPSG code.

The letters N and S are both bands (0 to 8 N, 32 to 40 N) and hemispheres. N is north either way. S means the
southern hemisphere where the northing cannot lie in band S.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import utm

from pipelines.sources.notes import Note
from pipelines.sources.numbers import is_missing, shown, tidy

__all__ = ["ImpossiblePosition", "Zone", "place_in_zone", "read_zone"]

MAX_ZONE_LENGTH = 120
BANDS = "CDEFGHJKLMNPQRSTUVWX"
# (first code - 1, southern, first zone, last zone): WGS 84, ETRS89, NAD83, GDA94, GDA2020, SIRGAS
# 2000, NAD83(2011), NZGD2000, JGD2000, JGD2011. All lie within two metres of WGS 84.
EPSG = (
    (32600, False, 1, 60),
    (32700, True, 1, 60),
    (25800, False, 28, 38),
    (26900, False, 1, 23),
    (28300, True, 48, 58),
    (7800, True, 46, 59),
    (31954, False, 11, 22),
    (31960, True, 17, 25),
    (6329, False, 1, 19),
    (2075, True, 58, 60),
    (3046, False, 51, 55),
    (6637, False, 51, 55),
)
BAND_S = (32.0, 40.0)
# Zones with land between 50 and 58 S, whose northings are also those of band S.
AMBIGUOUS_ZONES = frozenset({*range(18, 27), *range(57, 60)})
MAX_NORTHERN_M, MIN_SOUTHERN_M = 9_330_000.0, 1_110_000.0  # 84 N and 80 S
FALSE_NORTHING_M = 10_000_000.0

_HALF = r"(NORTH(?:ERN)?|SOUTH(?:ERN)?|[A-Z])(?: HEMISPHERE)?"
_ZONE = re.compile(
    r"(?:(?:WGS ?(?:19)?84|ETRS ?89|NAD ?83|GDA ?94|GDA ?2020|SIRGAS ?2000)[ /]*)?(?:UTM)?[ _]*"
    rf"(?:ZONE)?[ _:]*\+?0*([1-9]\d?)(?:\.0*)?[ _/-]*\(?(?:{_HALF})?\)?",
    re.ASCII,
)
_NAMED_HALF = re.compile(_HALF)
_LETTER_FIRST = re.compile(r"([C-HJ-NP-X])[ _-]?([1-9]\d?)", re.ASCII)
_CODE = re.compile(
    r"(?:EPSG\s*:{1,2}\s*|URN:OGC:DEF:CRS:EPSG:[\d.]*:|HTTPS?://WWW\.OPENGIS\.NET/DEF/CRS/EPSG/[\d.]+/)?"
    r"(\d{4,5})(?:\.0*)?",
    re.ASCII,
)
_PROJ = re.compile(r"\+PROJ=UTM(?= ).*? \+ZONE=(\d{1,2})\b(?:.*?( \+SOUTH)\b)?.*")


class ImpossiblePosition(ValueError):
    """UTM coordinates that lie nowhere in their zone."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A UTM zone as it was given.

    Attributes:
        number: 1 to 60.
        letter: Band or hemisphere letter, or empty.
        south: The hemisphere where it is named beyond doubt, or None.
    """

    number: int
    letter: str = ""
    south: bool | None = None


def read_zone(value: Any, letter: Any = None, notes: list[Note] | None = None) -> Zone | None:
    """Return a zone such as `33U`, `33`, `33.0`, `33 south`, `EPSG:32733`; None where it is missing.

    Args:
        value: Number or text.
        letter: Band or hemisphere from a column of its own, used where `value` has none.
        notes: Gets a note on a letter that is none of UTM, and the zone is returned without it; without a
            list, such a letter is an error.

    Raises:
        ValueError: it is not a zone.
    """
    if is_missing(value):
        return None
    text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))[
        : MAX_ZONE_LENGTH + 1
    ]
    text = tidy(text).upper()
    if len(text) > MAX_ZONE_LENGTH:
        raise ValueError("is not a UTM zone")
    if code := _CODE.fullmatch(text):
        return _from_epsg(int(code[1]))
    if projection := _PROJ.fullmatch(text):
        return Zone(int(projection[1]), south=projection[2] is not None)
    text = _LETTER_FIRST.sub(r"\2\1", text) if _LETTER_FIRST.fullmatch(text) else text
    match = _ZONE.fullmatch(text)
    if not match or not 1 <= int(match[1]) <= 60:
        raise ValueError("is not 1 to 60 with an optional band or hemisphere, nor an EPSG code of UTM")
    number, word = int(match[1]), match[2] or ""
    if not word and not is_missing(letter):
        named = _NAMED_HALF.fullmatch(tidy(str(letter)).upper())
        word = named[1] if named else shown(letter)
    if " / UTM" in text:  # the names of EPSG: the letter is the hemisphere
        word = {"N": "NORTH", "S": "SOUTH"}.get(word, word)
    if word in ("NORTH", "NORTHERN", "SOUTH", "SOUTHERN"):
        return Zone(number, south=word.startswith("S"))
    if word and word not in BANDS:
        problem = f"has the letter {shown(word)}, which is not a band of UTM"
        if notes is None:
            raise ValueError(problem)
        notes.append(Note("bad_zone", f"utm_zone {shown(value)} {problem}: it is read without it"))
        word = ""
    return Zone(number, word)


def place_in_zone(
    zone: Zone, easting: float, northing: float, lat: float | None = None
) -> tuple[str, float, list[Note]]:
    """Decide on the hemisphere of UTM coordinates.

    Args:
        zone: As it was given.
        easting: In metres.
        northing: In metres; negative ones are metres south of the equator.
        lat: Latitude of the same photo where it is known; it decides.

    Returns:
        The zone with its band, or without where the hemisphere is unknown; the northing; notes.

    Raises:
        ImpossiblePosition: there is no such place.
    """
    notes: list[Note] = []
    south = zone.south if lat is None else lat < 0
    if northing < 0:
        south, northing = True, northing + FALSE_NORTHING_M
    if south is None:
        south = _hemisphere(zone, easting, northing, notes)
    if south is None:
        return str(zone.number), northing, notes
    try:
        computed = float(utm.to_latlon(easting, northing, zone.number, northern=not south)[0])
    except ValueError as error:
        raise ImpossiblePosition(str(error)) from None
    if not -80.5 <= computed <= 84.5:
        raise ImpossiblePosition(f"{northing:.0f} m north is beyond the latitudes of UTM")
    band = BANDS[min(len(BANDS) - 1, max(0, int((computed + 80) // 8)))]
    if zone.letter in ("", "N", "S"):
        return f"{zone.number}{band}", northing, notes
    same_half = (zone.letter < "N") == south
    if not same_half or abs(BANDS.index(zone.letter) - BANDS.index(band)) > 1:
        notes.append(Note("zone_mismatch", f"utm_n {northing:.0f} is in band {band}, not {zone.letter}"))
    # Data sets name one band for a city that two share; the half of the globe is what counts.
    return f"{zone.number}{zone.letter if same_half else band}", northing, notes


def _hemisphere(zone: Zone, easting: float, northing: float, notes: list[Note]) -> bool | None:
    """Return whether coordinates are southern, or None where that is unknown."""
    if zone.letter == "S":
        lat = _northern_latitude(easting, northing, zone.number)
        if lat is None or not BAND_S[0] - 0.1 <= lat <= BAND_S[1] + 0.1:
            return True
        if zone.number in AMBIGUOUS_ZONES:
            place = f"utm_zone {zone.number}S with utm_n {northing:.0f}"
            notes.append(
                Note("ambiguous_zone", f"{place} is read as band S, north; if south, write {zone.number}F")
            )
        return False
    if zone.letter:
        return zone.letter < "N"
    if northing > MAX_NORTHERN_M:
        return True
    if northing < MIN_SOUTHERN_M:
        return False
    example = f"{zone.number}N, {zone.number} south"
    notes.append(Note("unknown_hemisphere", f"utm_zone {zone.number} has no hemisphere: write {example}"))
    return None


def _northern_latitude(easting: float, northing: float, number: int) -> float | None:
    try:
        return float(utm.to_latlon(easting, northing, number, northern=True)[0])
    except ValueError:
        return None


def _from_epsg(code: int) -> Zone:
    for base, south, first, last in EPSG:
        if first <= code - base <= last:
            return Zone(code - base, south=south)
    raise ValueError("is not an EPSG code of UTM")

"""Names of the columns of a listing: ours, with the synonyms that other programs write."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.sources.errors import SourceError
from pipelines.sources.notes import Note
from pipelines.sources.numbers import is_missing, read_number

__all__ = ["COLUMN_NAMES", "NAMES_OF_FILES", "Column", "count_known", "map_columns", "pick"]

# Compared without case, spaces, punctuation, units and group prefixes; of several, the first with a value is
# read. They are those of spreadsheets, exiftool, Mapillary (its API, MSLS, mapillary_tools), KartaView,
# OpenSfM, COLMAP, Google Takeout, GSV-Cities, GBIF, and logs of DJI drones with its own misspelling.
SYNONYMS = {
    "uri": """uri path sourcefile file filepath imagepath imagefile photopath photofile imgpath imgfile
        fullpath relativepath relpath filename imagefilename imagename imgname image img photo picture fname
        name title""",
    "image_id": "imageid id photoid imgid",
    "lat": """lat latitude gpslatitude gpslat latwgs84 wgs84lat latitudewgs84 maplatitude geodatalatitude
        geodataexiflatitude decimallatitude latdd latdecimal lattitude""",
    "lon": """lon lng longitude long gpslongitude gpslon gpslng gpslong lonwgs84 wgs84lon longitudewgs84
        maplongitude geodatalongitude geodataexiflongitude decimallongitude londd longdd lngdd londecimal
        longdecimal longtitude gpslongtitude""",
    "lat_ref": "gpslatituderef latituderef latref",
    "lon_ref": "gpslongituderef longituderef lonref",
    "lat_lon": "latlon latlng latlong latitudelongitude gpsposition gpscoordinates gps",
    "geometry": """computedgeometrycoordinates computedgeometry geometrycoordinates geometry geom wkt thegeom
        wkbgeometry geomwkt geomwkb""",
    "utm_e": "utme utmeast easting utmeasting utmx east",
    "utm_n": "utmn utmnorth northing utmnorthing utmy north",
    "utm_zone": "utmzone zone zonenumber utmzonenumber zonenum utmzonenum epsg crs srid",
    "utm_letter": """utmletter zoneletter utmzoneletter utmband utmzoneband zoneband band letter hemisphere
        utmhemisphere hemi""",
    "heading_deg": """headingdeg heading bearing computedcompassangle compassangle compass gpsimgdirection
        imgdirection imagedirection mapcompassheadingtrueheading mapcompassheadingmagneticheading
        gimbalyawdegree gimbalyaw gimbalheading cameraheading camerayaw camerabearing compassheading
        compassbearing poseheading poseheadingdegrees northdeg trueheading headingtrue bearingtrue
        truebearing headingtruenorth magneticheading headingmagnetic gpsheading yaw azimuth direction
        flightyawdegree flightyaw ca""",
    "captured_at": """capturedat time timestamp datetime datetimeoriginal subsecdatetimeoriginal capturetime
        capturedate captured datetaken takenat timetaken timestampms timestamps phototakentimetimestamp
        phototakentime phototakentimeformatted mapcapturetime shotdate shottime shotat taken takenon
        capturedon acquisitiontime eventdate unixtime unixtimestamp epoch epochtime gpsdatetime
        createdate creationdate creationtime gpstimestamp gpstime""",
    "capture_date": "date gpsdatestamp day",
    "capture_year": "year",
    "capture_month": "month",
    "capture_offset": "offsettimeoriginal offsettime utcoffset timezone tzoffset timezoneoffset",
    "tags": "tags keywords tag labels",
}
COLUMN_NAMES = {ours: tuple(names.split()) for ours, names in SYNONYMS.items()}
REPORTED = ("uri", "image_id", "lat", "lon", "utm_e", "utm_n", "utm_zone", "heading_deg", "captured_at")
UNCERTAIN = ("name", "title")  # often of the place rather than the file
NAMES_OF_FILES = frozenset({"uri", "image_id"})
MAX_COLUMNS = 1_000
MAX_SHOWN = 300
OURS = {alias: ours for ours, aliases in COLUMN_NAMES.items() for alias in aliases}
_GROUP = re.compile(r"^#?\s*[\w-]+:(?=\S)")  # EXIF:, XMP-drone-dji:
_BRACKETS = re.compile(r"[\s_]*[(\[][^)\]]*[)\]]\s*$")
_ANGLES = ("lat", "lon", "heading_deg")
# Endings of names that are units, of what, and what makes degrees of them.
UNITS = (
    (re.compile("(deg|degrees?)$"), _ANGLES, 1.0),
    (re.compile("(rad|radians?)$"), _ANGLES, math.degrees(1)),
    (re.compile("e7$"), ("lat", "lon"), 1e-7),
    (re.compile("(m|met(er|re)s?)$"), ("utm_e", "utm_n"), 1.0),
    (re.compile("(utc|gmt|ms|us|ns|s|seconds|sec|millis)$"), ("captured_at", "capture_date"), 1.0),
)


class Column(NamedTuple):
    """A column of a listing that is read.

    Attributes:
        place: In the header, from 0.
        to_degrees: What its numbers are multiplied by.
    """

    place: int
    to_degrees: float = 1.0


def map_columns(
    header: list[str], path: object, *, needs_paths: bool = True
) -> tuple[dict[str, list[Column]], list[Note]]:
    """Find our columns in the header of a listing.

    Args:
        header: Names of its columns.
        path: Of the listing, for messages.
        needs_paths: Whether a column with the paths must be there.

    Returns:
        The columns by our name, the first one first, and a note for each further column that means the same.

    Raises:
        SourceError: a column with the paths is missing, or the header is ambiguous.
    """
    if len(header) > MAX_COLUMNS:
        raise SourceError(f"{path} has {len(header)} columns: keep only {', '.join(REPORTED)}")
    found: dict[str, list[tuple[int, Column]]] = {}
    for place, name in enumerate(header):
        if known := _recognise(name):
            ours, rank, to_degrees = known
            found.setdefault(ours, []).append((rank, Column(place, to_degrees)))
    if "uri" not in found and needs_paths:
        if not any(name.strip() for name in header):
            raise SourceError(f"{path} is empty: give a listing with a line of column names")
        names = ", ".join(header[:20])[:MAX_SHOWN]
        raise SourceError(f"{path} has no column uri (or path) but {names}: rename one")
    columns, notes = {}, []
    for ours in COLUMN_NAMES:
        if ours not in found:
            continue
        ranked = sorted(found[ours], key=lambda choice: (choice[0], *_order(header, choice[1])))
        certain = [rank for rank, _ in ranked if COLUMN_NAMES[ours][rank] not in UNCERTAIN]
        columns[ours] = [column for rank, column in ranked if not certain or rank in certain]
        first, *others = (header[column.place] for column in columns[ours])
        if first.strip().lower() in {name.strip().lower() for name in others}:
            raise SourceError(f"{path} has two columns with the name {first[:MAX_SHOWN]}: rename one")
        # Mapillary and exiftool write several that differ in kind; say which one is used.
        notes += [
            Note("unused_column", f"column {name} is read only where {first} has no value: both give {ours}")
            for name in others
        ]
    return columns, notes


def _order(header: list[str], column: Column) -> tuple[bool, int]:
    """Order columns of the same name: what exiftool composes has a sign, what EXIF holds may have none."""
    return not header[column.place].strip().lower().startswith("composite:"), column.place


def pick(columns: Mapping[str, Sequence[Column]], cells: Sequence[Any]) -> dict[str, Any]:
    """Return the values of a row by our names: of several columns, that of the first one with a value.

    Args:
        columns: As `map_columns` returns them.
        cells: Values by place; trailing ones may be missing.
    """
    row: dict[str, Any] = {}
    for ours, choices in columns.items():
        for column in choices:
            value = cells[column.place] if column.place < len(cells) else None
            if column.to_degrees != 1.0:
                value = _scaled(value, column.to_degrees)
            row.setdefault(ours, value)
            if not _is_empty(value, ours):
                row[ours] = value
                break
    return row


def count_known(header: list[str]) -> tuple[bool, int]:
    """Return whether a header has a column with the paths, and how many of its columns are known."""
    ours = {known[0] for known in map(_recognise, header) if known}
    return "uri" in ours, len(ours)


def _is_empty(value: Any, ours: str) -> bool:
    if isinstance(value, str) and ours in NAMES_OF_FILES:  # NA may be a name
        return not value.strip()
    return is_missing(value)


def _scaled(value: Any, factor: float) -> Any:
    try:
        return value if is_missing(value) else read_number(value) * factor
    except ValueError:
        return value


def _recognise(name: str) -> tuple[str, int, float] | None:
    """Return what a column is, the rank of its name among the synonyms, and what makes degrees of it."""
    plain = _GROUP.sub("", name.strip()).lstrip("#").lower()
    whole = re.sub(r"[^0-9a-z]", "", plain)
    without_unit = re.sub(r"[^0-9a-z]", "", _BRACKETS.sub("", plain))
    last = re.sub(r"[^0-9a-z]", "", _BRACKETS.sub("", plain.rpartition(".")[2]))
    for key in (whole, without_unit):
        if (ours := OURS.get(key)) and not _has_other_unit(whole, key, ours):
            return ours, COLUMN_NAMES[ours].index(key), 1.0
    for key in (whole, last):  # of flattened columns, such as location.lat, the last part
        for unit, kinds, to_degrees in UNITS:
            stem = unit.sub("", key)
            if stem != key and (ours := OURS.get(stem)) in kinds and ours:
                return ours, COLUMN_NAMES[ours].index(stem), to_degrees
    if "." in plain and (ours := OURS.get(last)) and ours not in NAMES_OF_FILES:
        return ours, COLUMN_NAMES[ours].index(last), 1.0
    return None


def _has_other_unit(whole: str, key: str, ours: str) -> bool:
    """Whether brackets, as in `yaw (rad)`, name a unit to convert from."""
    return whole != key and any(
        unit.search(whole.removeprefix(key))
        for unit, kinds, to_degrees in UNITS
        if to_degrees != 1 and ours in kinds
    )

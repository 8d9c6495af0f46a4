"""Names of the columns of a listing: ours, with the synonyms that other programs write."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.sources.errors import SourceError
from pipelines.sources.notes import Note

__all__ = ["COLUMN_NAMES", "count_known", "map_columns"]

# Compared without case, spaces, punctuation, units and group prefixes; of several, the first one is read.
SYNONYMS = {
    "uri": """uri path sourcefile file filepath imagepath imagefile photopath photofile imgpath imgfile
        fullpath relativepath filename imagefilename imagename imgname image img photo picture""",
    "image_id": "imageid id photoid imgid",
    "lat": "lat latitude gpslatitude gpslat latwgs84 wgs84lat",
    "lon": "lon lng longitude long gpslongitude gpslon gpslng gpslong lonwgs84 wgs84lon",
    "lat_ref": "gpslatituderef latituderef latref",
    "lon_ref": "gpslongituderef longituderef lonref",
    "lat_lon": "latlon latlng latlong gpsposition gpscoordinates",
    "geometry": "computedgeometrycoordinates computedgeometry geometrycoordinates geometry geom wkt",
    "utm_e": "utme utmeast easting utmeasting utmx east",
    "utm_n": "utmn utmnorth northing utmnorthing utmy north",
    "utm_zone": "utmzone zone zonenumber utmzonenumber zonenum epsg crs srid",
    "utm_letter": "utmletter zoneletter utmzoneletter utmband band letter hemisphere hemi",
    "heading_deg": """headingdeg heading bearing computedcompassangle compassangle compass gpsimgdirection
        imgdirection cameraheading yaw azimuth direction ca""",
    "captured_at": """capturedat time timestamp datetime datetimeoriginal subsecdatetimeoriginal capturetime
        capturedate captured datetaken takenat timetaken timestampms timestamps gpsdatetime createdate
        creationdate creationtime""",
    "capture_date": "date gpsdatestamp day",
    "capture_offset": "offsettimeoriginal offsettime utcoffset",
    "tags": "tags keywords tag",
}
COLUMN_NAMES = {ours: tuple(names.split()) for ours, names in SYNONYMS.items()}
REPORTED = ("uri", "image_id", "lat", "lon", "utm_e", "utm_n", "utm_zone", "heading_deg", "captured_at")
MAX_COLUMNS = 1_000
MAX_SHOWN = 300
OURS = {alias: ours for ours, aliases in COLUMN_NAMES.items() for alias in aliases}
_BRACKETS = re.compile(r"[\s_]*[(\[][^)\]]*[)\]]\s*$")
_UNITS = re.compile(r"(deg|degrees?|m|met(er|re)s?|utc)$")


def map_columns(header: list[str], path: Path) -> tuple[dict[str, int], list[Note]]:
    """Map our column names to positions in the header of a listing.

    Returns:
        The positions by our name, and a note for each further column that means the same.

    Raises:
        SourceError: a column with the paths is missing, or the header is ambiguous.
    """
    if len(header) > MAX_COLUMNS:
        raise SourceError(f"{path} has {len(header)} columns: keep only {', '.join(REPORTED)}")
    columns, notes = {}, []
    keys = [_key(name) for name in header]
    for ours, aliases in COLUMN_NAMES.items():
        found = [place for alias in aliases for place, key in enumerate(keys) if key == alias]
        if not found:
            continue
        columns[ours] = found[0]
        first = header[found[0]]
        if [header[place].strip().lower() for place in found].count(first.strip().lower()) > 1:
            raise SourceError(f"{path} has two columns with the name {first[:MAX_SHOWN]}: rename one")
        others = [header[place] for place in found[1:]]
        # Mapillary and exiftool write several that differ in kind; say which one is used.
        notes += [
            Note("unused_column", f"column {name} is not read: {first} gives {ours}") for name in others
        ]
    if "uri" not in columns:
        names = ", ".join(header[:20])[:MAX_SHOWN]
        raise SourceError(f"{path} has no column uri (or path) but {names}: rename one")
    return columns, notes


def count_known(header: list[str]) -> tuple[bool, int]:
    """Return whether a header has a column with the paths, and how many of its columns are known."""
    ours = {OURS[key] for key in map(_key, header) if key in OURS}
    return "uri" in ours, len(ours)


def _key(name: str) -> str:
    """Reduce a column's name to what is compared: `EXIF:GPSLatitude (deg)` to `gpslatitude`."""
    name = _BRACKETS.sub("", name.strip().lstrip("#")).lower()
    name = re.sub(r"^(exif|composite|xmp|gps|main|file|system):", "", name)
    key = re.sub(r"[^0-9a-z]", "", name)
    plain = _UNITS.sub("", key)
    return plain if key not in OURS and plain in OURS else key

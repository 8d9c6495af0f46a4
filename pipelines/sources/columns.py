"""Names of the columns of a listing, with the aliases that are understood."""

from __future__ import annotations

from pathlib import Path

from pipelines.sources.errors import SourceError

__all__ = ["COLUMN_NAMES", "map_columns"]

COLUMN_NAMES = {
    "uri": ("uri", "path", "file", "filename"),
    "image_id": ("image_id", "id"),
    "lat": ("lat", "latitude"),
    "lon": ("lon", "lng", "longitude"),
    "utm_e": ("utm_e", "utm_east", "easting"),
    "utm_n": ("utm_n", "utm_north", "northing"),
    "utm_zone": ("utm_zone", "zone"),
    "heading_deg": ("heading_deg", "heading"),
    "captured_at": ("captured_at", "time", "timestamp", "datetime"),
}
MAX_COLUMNS = 1_000


def map_columns(header: list[str], path: Path) -> dict[str, str]:
    """Map our column names to those of a listing; of several aliases the first one wins.

    Raises:
        SourceError: a column with the paths is missing, or the header is ambiguous.
    """
    if len(header) > MAX_COLUMNS:
        raise SourceError(f"{path} has {len(header)} columns: keep only {', '.join(COLUMN_NAMES)}")
    if len(set(header)) < len(header):
        raise SourceError(f"{path} has two columns with the same name: rename one")
    by_name = {name.strip().lower(): name for name in reversed(header)}
    columns = {
        ours: by_name[alias]
        for ours, aliases in COLUMN_NAMES.items()
        for alias in reversed(aliases)
        if alias in by_name
    }
    if "uri" not in columns:
        raise SourceError(f"{path} has no column uri (or path) but {', '.join(header[:20])}: rename one")
    return columns

"""Filters of stored rows: by distance, area, direction, time and tag. All are exact, and safe to pickle."""

from storage.search.filters.all_of import AllOf, all_of
from storage.search.filters.capture_time import Taken
from storage.search.filters.errors import BadFilter
from storage.search.filters.geojson import inside_geojson, read_geojson
from storage.search.filters.heading import Heading
from storage.search.filters.near import Near
from storage.search.filters.polygon import Inside
from storage.search.filters.tags import Tagged

__all__ = [
    "AllOf",
    "BadFilter",
    "Heading",
    "Inside",
    "Near",
    "Tagged",
    "Taken",
    "all_of",
    "inside_geojson",
    "read_geojson",
]

"""What names, folders, tags and columns tell about a query photo: light, season, weather, view, city."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.evaluation.facet_columns import read_facet_columns

__all__ = ["KINDS", "facets_of_listing"]

KINDS = ("condition", "light", "season", "weather", "view", "city")
_VALUES = {
    "light": {"day": "day", "night": "night", "dawn": "dawn", "dusk": "dusk", "daytime": "day"},
    "season": {
        **{name: name for name in ("spring", "summer", "autumn", "winter")},
        "fall": "autumn",
    },
    "weather": {
        **{name: name for name in ("snow", "rain", "sun", "fog", "overcast", "glare", "clear")},
        "sunny": "sun",
        "cloudy": "overcast",
        "clouds": "overcast",
        "snowy": "snow",
        "rainy": "rain",
    },
    "view": {name: name for name in ("forward", "backward", "sideways")},
}
_KIND_OF = {word: (kind, value) for kind, words in _VALUES.items() for word, value in words.items()}
_NOTE_FIELD, _MIN_FIELDS = 14, 15  # of a standard file name, see `pipelines.sources.standard_name`
_QUERY_FOLDER = re.compile(r"quer(?:y|ies)_(.+)", re.IGNORECASE)
_WORDS = re.compile(r"[^a-z0-9]+")
_MSLS_NOTE = re.compile(r"(day|night)_(forward|backward|sideways)_(.+)")
_MAX_LENGTH = 60


def facets_of_listing(source: Path, listing: pa.Table, root: Path | None = None) -> list[dict[str, str]]:
    """Return what is known of each photo of a listing, by kind.

    The file name's note and the folders below and at the source are read first, then tags, then the columns
    of a CSV or Parquet listing, which win.

    Args:
        source: The folder or the listing.
        listing: Its rows, of `LISTING_SCHEMA`, in the order of the source.
        root: Folder that the paths of a listing are relative to.
    """
    base = source if source.is_dir() else (root or source.parent)
    columns: Sequence[dict[str, str]] = [{}] * listing.num_rows
    if not source.is_dir():
        columns = read_facet_columns(source, listing.num_rows)
    tags = listing["tags"].to_pylist() if "tags" in listing.column_names else [None] * listing.num_rows
    uris = pc.fill_null(listing["uri"], "").to_pylist()
    return [
        _facets(Path(uri), base, json.loads(tag) if tag else ()) | given
        for uri, tag, given in zip(uris, tags, columns, strict=True)
    ]


def _facets(path: Path, base: Path, tags: Sequence[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    folders = path.parent.relative_to(base).parts if path.is_relative_to(base) else ()
    for folder in (base.name, *folders):
        if named := _QUERY_FOLDER.fullmatch(folder):
            found["condition"] = named[1].lower()[:_MAX_LENGTH]
        found |= _known_words(folder)
    fields = path.name.split("@")
    if len(fields) > _MIN_FIELDS:
        note = fields[_NOTE_FIELD].lower()
        found |= _known_words(note)
        if msls := _MSLS_NOTE.fullmatch(note):
            found["city"] = msls[3][:_MAX_LENGTH]
    for tag in tags:
        found |= _known_words(str(tag))
    return found


def _known_words(text: str) -> dict[str, str]:
    return dict(_KIND_OF[word] for word in _WORDS.split(text.lower()) if word in _KIND_OF)

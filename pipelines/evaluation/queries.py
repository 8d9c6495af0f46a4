"""The queries of an evaluation: read once and checked, before anything is indexed for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.images import ImageRejected, decode_image
from models.images.limits import MAX_PIXELS, check_pixels
from models.images.photo_file import read_bytes
from pipelines.evaluation.facets import facets_of_listing
from pipelines.sources import SourceError, list_source
from storage.position import POSITION_COLUMNS, Position

__all__ = ["Queries", "read_queries"]

_THREADS = 4
_CHECKED_SIDE_PX = 32  # JPEGs are decoded at an eighth of their size: every byte is read, in less time


@dataclass(frozen=True)
class Queries:
    """The photos to locate.

    Attributes:
        rows: Those that can be scored, sorted by path: `uri`, `rejected` and `message` (None for usable
            photos), `POSITION_COLUMNS`, `sha256` of the file (None where it cannot be read) and `facets`, see
            `pipelines.evaluation.facets`.
        listed: How many were read, with and without position.
        total: How many the source has.
    """

    rows: tuple[dict[str, Any], ...]
    listed: int
    total: int

    @property
    def without_position(self) -> int:
        """How many cannot be scored, because nobody says where they were taken."""
        return self.listed - len(self.rows)

    @property
    def rejected(self) -> int:
        """How many of the rows are photos that cannot be used."""
        return sum(row["rejected"] is not None for row in self.rows)


def read_queries(
    source: Path,
    *,
    root: str | Path | None = None,
    only: Collection[str] | None = None,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
    by_position: bool = True,
    progress: Callable[[int, int, int], None] = lambda done, rejected, total: None,
) -> Queries:
    """List the queries of a folder or a listing and decode each, for its EXIF and to see that it can be used.

    Positions come from the listing, else from the file name, else from EXIF.

    Args:
        source: The folder or the listing.
        root: Folder that the paths of a listing are relative to.
        only: Paths of the queries to read; by default all.
        follow_links: Whether symbolic links may lead out of the folder.
        max_pixels: Largest width times height of a photo that can be used.
        by_position: Whether queries without a position are left out, as they cannot be scored.
        progress: Called with (done, rejected, total).

    Raises:
        SourceError: there are no queries, none has a position, or none of those with a position can be used.
    """
    listing = list_source(source, root=root, follow_links=follow_links)
    facets = facets_of_listing(source, listing, None if root is None else Path(root))
    facets_of = dict(zip(listing["uri"].to_pylist(), facets, strict=True))
    listing = listing.sort_by("uri")
    total = listing.num_rows
    if only is not None:
        listing = listing.filter(pa.compute.is_in(listing["uri"], pa.array(sorted(only), pa.string())))
    rows: list[dict[str, Any]] = []
    rejected = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        for row in threads.map(partial(_checked, max_pixels=max_pixels), listing.to_pylist()):
            rows.append(row | {"facets": facets_of[row["uri"]]})
            rejected += row["rejected"] is not None
            progress(len(rows), rejected, listing.num_rows)
    scored = tuple(row for row in rows if not by_position or Position.of(row).known)
    queries = Queries(scored, len(rows), total)
    if not queries.rows:
        raise SourceError(
            f"none of {len(rows)} queries in {source} has a position, so none can be scored: give a listing "
            "with coordinates, photos with GPS in their EXIF, or name files @easting@northing@..."
        )
    if queries.rejected == len(queries.rows):
        first = queries.rows[0]
        raise SourceError(
            f"none of {len(queries.rows)} queries in {source} can be used, such as {first['uri']} "
            f"({first['message'] or first['rejected']}): check the path and the files"
        )
    return queries


def _checked(row: dict[str, Any], max_pixels: int) -> dict[str, Any]:
    checked = {name: row[name] for name in ("uri", "rejected", "message", *POSITION_COLUMNS)}
    checked["sha256"] = None
    if checked["rejected"]:
        return checked
    try:
        content = read_bytes(row["uri"])
        checked["sha256"] = hashlib.sha256(content).hexdigest()
        photo = decode_image(content, max_pixels=max_pixels, min_side_px=_CHECKED_SIDE_PX)
        check_pixels(photo.width, photo.height, max_pixels)  # of the whole photo, which is decoded later
    except ImageRejected as error:
        return checked | {"rejected": error.reason, "message": str(error)}
    if not Position.of(checked).known:
        checked |= {"lat": photo.lat, "lon": photo.lon}
    return checked

"""Pages on which a person accepts or rejects the places of photos: one HTML file each, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.images import ImageRejected
from models.images.photo_file import read_indexed
from pipelines.html_report import Thumbnail, make_thumbnail, render
from pipelines.locate.entry import Entry
from serving.answer import Match
from storage.durable import replace_file
from storage.local_plane import LocalPlane
from storage.neighbourhoods import nearby
from storage.position import POSITION_COLUMNS, Position, Positions
from storage.records import ImageRecord
from storage.store import Store
from storage.text import plain

__all__ = ["PHOTOS_PER_PAGE", "ReviewPages"]

PHOTOS_PER_PAGE = 100  # about 25 MB
_PHOTO_PX, _EVIDENCE_PX, _EVIDENCE = 900, 320, 3
_LEAST_REACH_M, _MOST_REACH_M, _MOST_DOTS = 120.0, 2_000.0, 600
_MAP = 320.0  # units


@dataclass(frozen=True, eq=False)
class _Card:
    """A photo on a page."""

    entry: Entry
    photo: Thumbnail | None
    evidence: list[tuple[str, Thumbnail | None]]


class ReviewPages:
    """Collects photos and writes a page for each hundred of them.

    Args:
        out: The list that the pages belong to; they lie beside it.
        store: Whose images are the evidence.
    """

    def __init__(self, out: Path, store: Store) -> None:
        self._out = out
        self._store = store
        self._cards: list[_Card] = []
        self._pages: list[Path] = []
        rows = store.metadata()
        self._positions = Positions.from_columns({name: rows[name].to_pylist() for name in POSITION_COLUMNS})

    def add(self, entry: Entry, photo: bytes, matches: Sequence[Match]) -> None:
        """Add a photo that has a place.

        Args:
            entry: With its place.
            photo: Its file.
            matches: The best ones of its answer.

        Raises:
            OutOfSpace, NotWritable: a page cannot be written.
        """
        assert entry.place is not None
        of_place = set(entry.place["evidence"])
        shown = [match for match in matches if match.record.image_id in of_place][:_EVIDENCE]
        evidence = [(match.record.image_id, _stored(match)) for match in shown]
        self._cards.append(_Card(entry, _thumbnail(photo), evidence))
        if len(self._cards) == PHOTOS_PER_PAGE:
            self._write()

    def finish(self) -> list[str]:
        """Write the last page; return the paths of all.

        Raises:
            OutOfSpace, NotWritable: a page cannot be written.
        """
        if self._cards:
            self._write()
        return [str(page) for page in self._pages]

    def _write(self) -> None:
        number = len(self._pages) + 1
        name = f"{self._out.stem}-review" + (f"-{number}" if number > 1 else "") + ".html"
        maps = self._maps()
        digest = hashlib.sha256("".join(card.entry.sha256 for card in self._cards).encode()).hexdigest()
        page = render(
            "review.html",
            cards=[_shown(card, map_) for card, map_ in zip(self._cards, maps, strict=True)],
            rows=[_row(card.entry) for card in self._cards],
            key=f"placeray-review-{digest[:16]}",
            number=number,
            file="reviewed.csv" if number == 1 else f"reviewed-{number}.csv",
        )
        replace_file(self._out.with_name(name), page)
        self._pages.append(self._out.with_name(name))
        self._cards = []

    def _maps(self) -> list[dict[str, Any] | None]:
        """Return for each photo the stored images around its place, as points on a map."""
        places = [Position.of((card.entry.place or {}).get("position") or {}) for card in self._cards]
        reaches = [_reach_m(card.entry) for card in self._cards]
        around = nearby(Positions.of(places), self._positions, max(reaches))
        return [
            self._map(place, around.of(row), reach_m, card) if place.known else None
            for row, (place, reach_m, card) in enumerate(zip(places, reaches, self._cards, strict=True))
        ]

    def _map(self, place: Position, rows: NDArray[np.int64], reach_m: float, card: _Card) -> dict[str, Any]:
        positions = Positions.of([place])
        points = LocalPlane.around(positions).points(self._positions.take(rows))
        points = points - LocalPlane.around(positions).points(positions)
        inside = points[np.isfinite(points).all(axis=1) & (np.abs(points) <= reach_m).all(axis=1)]
        inside = inside[:: max(1, len(inside) // _MOST_DOTS)]
        scale = _MAP / 2 / reach_m
        radius_m = (card.entry.place or {}).get("radius_m")
        bar_m = _round_metres(reach_m / 2)
        return {
            "dots": [(float(_MAP / 2 + x * scale), float(_MAP / 2 - y * scale)) for x, y in inside],
            "radius": None if radius_m is None else float(radius_m * scale),
            "bar": float(bar_m * scale),
            "bar_m": bar_m,
            "size": _MAP,
        }


def _reach_m(entry: Entry) -> float:
    """Return how far a map reaches to each side."""
    place = entry.place or {}
    wanted = 2.5 * max(place.get("radius_m") or 0.0, place.get("spread_m") or 0.0)
    return min(max(wanted, _LEAST_REACH_M), _MOST_REACH_M)


def _round_metres(metres: float) -> int:
    """Return the largest of 1, 2, 5, 10, ... up to a length."""
    steps = [factor * scale for scale in (1, 10, 100, 1_000) for factor in (1, 2, 5)]
    return max(step for step in steps if step <= max(metres, 1.0))


def _shown(card: _Card, map_: dict[str, Any] | None) -> dict[str, Any]:
    place = card.entry.place or {}
    return {
        "name": plain(card.entry.image, 200),
        "photo": card.photo,
        "evidence": [(plain(image_id, 120), picture) for image_id, picture in card.evidence],
        "map": map_,
        "degrees": card.entry.degrees,
        "position": place.get("position"),
        "radius_m": place.get("radius_m"),
        "heading_deg": place.get("heading_deg"),
        "probability_right": place.get("probability_right"),
        "known": place.get("known"),
        "images": len(place.get("evidence", ())),
    }


def _row(entry: Entry) -> dict[str, Any]:
    """Return what the page writes into its list of decisions."""
    values = entry.values()
    return {name: values[name] for name in ("image", "folder", "sha256", "lat", "lon", "radius_m")}


def _stored(match: Match) -> Thumbnail | None:
    """Return the picture of a stored image; None where the file is gone or is another one."""
    record = match.record
    if not isinstance(record, ImageRecord):
        return None
    try:
        return make_thumbnail(read_indexed(record.uri, record.sha256), max_side_px=_EVIDENCE_PX)
    except ImageRejected:
        return None


def _thumbnail(photo: bytes) -> Thumbnail | None:
    try:
        return make_thumbnail(photo, max_side_px=_PHOTO_PX)
    except ImageRejected:  # larger than pages decode
        return None

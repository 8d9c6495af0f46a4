"""The page of an atlas: one HTML file, no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.images import ImageRejected
from models.images.photo_file import read_indexed
from pipelines.atlas.similar_pairs import SimilarPairs
from pipelines.html_report import Thumbnail, make_thumbnail, render
from storage.durable import replace_file
from storage.position import Positions

__all__ = ["write_page"]

_THUMBNAIL_PX, _PICTURED = 360, 12
_MAX_DOTS = 6_000


def write_page(
    path: Path,
    found: Mapping[str, Any],
    rows: pa.Table,
    positions: Positions,
    *,
    holes: Mapping[str, Any] | None,
    removed: NDArray[np.bool_],
    alike: SimilarPairs,
) -> None:
    """Write the page atomically; arguments as of `pipelines.atlas.geojson.features_of`.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the folder cannot be written.
    """
    page = render(
        "atlas.html",
        found=found,
        map=_map(positions, holes, removed, alike),
        pairs=[_pair(rows, alike, row) for row in range(min(_PICTURED, len(alike.rows)))],
        listed_alike=[_named(rows, alike, row) for row in range(len(alike.rows))],
    )
    replace_file(path, page)


def _map(
    positions: Positions, holes: Mapping[str, Any] | None, removed: NDArray[np.bool_], alike: SimilarPairs
) -> dict[str, Any]:
    missing = Positions.of([place for place, _ in holes["places"]]) if holes and holes["places"] else None
    points = positions.on_one_plane()
    empty = missing.on_one_plane() if missing is not None else np.empty((0, 2))
    shown = np.concatenate([points, empty])
    shown = shown[np.isfinite(shown).all(axis=1)]
    low = shown.min(axis=0)
    span = np.maximum(shown.max(axis=0) - low, 1.0)
    scale = 1000.0 / max(span[0], span[1] * 2.0)
    width, height = span * scale + 40

    def on_map(point: NDArray[np.float64]) -> tuple[float, float]:
        x, y = (point - low) * scale + 20
        return float(x), float(height - y)

    def dots(of: NDArray[np.float64]) -> list[tuple[float, float]]:
        finite = of[np.isfinite(of).all(axis=1)]
        return [on_map(point) for point in finite[:: max(1, len(finite) // _MAX_DOTS)]]

    ends = points[alike.rows]
    return {
        "width": float(width),
        "height": float(height),
        "extent": f"{span[0]:.0f} m by {span[1]:.0f} m, north up",
        "kept": dots(points[~removed]),
        "removed": dots(points[removed]),
        "holes": dots(empty),
        "alike": [(*on_map(a), *on_map(b)) for a, b in ends if np.isfinite([a, b]).all()],
    }


def _named(rows: pa.Table, alike: SimilarPairs, row: int) -> tuple[str, str, float, float]:
    first, second = alike.rows[row].tolist()
    ids = rows["image_id"]
    pair = ids[first].as_py(), ids[second].as_py()
    return *pair, float(alike.similarity[row]), float(alike.distance_m[row])


def _pair(rows: pa.Table, alike: SimilarPairs, row: int) -> dict[str, Any]:
    first, second, similarity, metres = _named(rows, alike, row)
    pictures = [_thumbnail(rows, at) for at in alike.rows[row].tolist()]
    return {"pictures": pictures, "names": (first, second), "similarity": similarity, "metres": metres}


def _thumbnail(rows: pa.Table, row: int) -> Thumbnail | None:
    """Return the picture of a stored image; None where the file is gone or is another one."""
    try:
        data = read_indexed(rows["uri"][row].as_py(), rows["sha256"][row].as_py() or "")
        return make_thumbnail(data, max_side_px=_THUMBNAIL_PX)
    except ImageRejected:
        return None

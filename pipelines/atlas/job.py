"""Makes the atlas of a store: a page, a GeoJSON file, and a list of images that can be removed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.atlas.geojson import features_of
from pipelines.atlas.page import write_page
from pipelines.atlas.similar_pairs import SimilarPairs, find_pairs, leave_one_out
from pipelines.defaults import THRESHOLD_M
from pipelines.evaluation.descriptors import descriptor_matrix, stored_descriptors
from pipelines.evaluation.ground_truth import positions_of
from pipelines.evaluation.query_places import places_of
from pipelines.sources import SourceError, list_source
from storage.durable import explain_write_errors, replace_file
from storage.neighbourhoods import nearby
from storage.position import Position, Positions
from storage.store import Store
from storage.text import spreadsheet_safe

__all__ = ["make_atlas"]

_NEAR_M, _FAR_M, _HEADING_DEG = 5.0, 100.0, 30.0
_RARE = 1e-3  # share of pairs of other places that are as similar as near-duplicates at least
_MAX_ALIKE = 100


def make_atlas(
    store_uri: str,
    out: str | Path,
    *,
    listing: str | Path | None = None,
    root: str | Path | None = None,
    radius_m: float = THRESHOLD_M,
    near_m: float = _NEAR_M,
    far_m: float = _FAR_M,
    duplicate_similarity: float | None = None,
) -> dict[str, Any]:
    """Look for holes, near-duplicates and look-alikes of a store, and write what was found.

    Args:
        store_uri: The store; only read.
        out: Folder for index.html, atlas.geojson, prune.csv and atlas.json.
        listing: Where photos should be: a table with positions, a listing of photos or a folder; None looks
            for no holes.
        root: Folder that the paths of the listing are relative to.
        radius_m: A listed position is covered by a stored image within this distance.
        near_m: Near-duplicates are at most this far apart, and look the same way within 30 degrees where both
            headings are known.
        far_m: Look-alikes are at least this far apart.
        duplicate_similarity: Least cosine similarity of near-duplicates; default: what only one in a thousand
            similar pairs of far places reaches.

    Returns:
        Plain values for JSON: counts, thresholds, the recall before and after pruning, and `files`.

    Raises:
        SourceError: the listing cannot be read or has no positions, or the store has too few positions.
        StoreError: the store cannot be read.
        OutOfSpace, NotWritable: the folder cannot be written.
    """
    store = Store.open(store_uri)
    rows = stored_descriptors(store).sort_by("image_id")
    positions = positions_of(rows)
    if positions.known.sum() < 2:
        raise SourceError(
            f"{positions.known.sum()} of {rows.num_rows} images in {store.uri} have a position: index images "
            "with coordinates"
        )
    descriptors = descriptor_matrix(rows)
    pairs = find_pairs(descriptors, positions)
    least = _duplicate_similarity(pairs, far_m) if duplicate_similarity is None else duplicate_similarity
    removed, keeper = _prunable(pairs, rows, near_m=near_m, least=least)
    before, after, asked = leave_one_out(descriptors, positions, removed, threshold_m=radius_m)
    alike = _alike(pairs, positions, near_m=near_m, far_m=far_m)
    holes = None if listing is None else _holes(listing, root, positions, radius_m)
    found: dict[str, Any] = {
        "store": store.uri,
        "store_version": store.version,
        "images": rows.num_rows,
        "without_position": int((~positions.known).sum()),
        "compared": pairs.looked_at,
        "holes": None if holes is None else len(holes["places"]),
        "listed": None if holes is None else holes["listed"],
        "uncovered": None if holes is None else holes["uncovered"],
        "radius_m": radius_m,
        "near_m": near_m,
        "far_m": far_m,
        "duplicate_similarity": round(least, 4),
        "prunable": int(removed.sum()),
        "recall_before_pruning": before,
        "recall_after_pruning": after,
        "recall_queries": asked,
        "alike": len(alike.rows),
    }
    folder = Path(out).expanduser()
    with explain_write_errors(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
    _write_prune_list(folder / "prune.csv", rows, removed, keeper)
    features = features_of(rows, positions, holes=holes, removed=removed, keeper=keeper, alike=alike)
    collection = {"type": "FeatureCollection", "features": features}
    replace_file(folder / "atlas.geojson", json.dumps(collection, allow_nan=False).encode())
    write_page(folder / "index.html", found, rows, positions, holes=holes, removed=removed, alike=alike)
    replace_file(folder / "atlas.json", (json.dumps(found, indent=2) + "\n").encode())
    names = ("index.html", "atlas.geojson", "prune.csv", "atlas.json")
    return found | {"files": [str(folder / name) for name in names]}


def _duplicate_similarity(pairs: SimilarPairs, far_m: float) -> float:
    """Return the similarity that one in a thousand similar pairs of far places reaches; 0.95 without any."""
    far = pairs.similarity[pairs.distance_m >= far_m]
    return float(np.quantile(far, 1.0 - _RARE)) if len(far) else 0.95


def _prunable(
    pairs: SimilarPairs, rows: pa.Table, *, near_m: float, least: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Choose images to remove, so that each has a near-duplicate that is kept.

    Returns:
        (N,) which rows can be removed, and (N,) the row that is kept instead; -1 for those kept.
    """
    removed = np.zeros(rows.num_rows, np.bool_)
    keeper = np.full(rows.num_rows, -1, np.int64)
    needed = np.zeros(rows.num_rows, np.bool_)  # kept for another one
    headings = np.array(rows["heading_deg"].to_pylist(), np.float64)
    near = pairs.where((pairs.distance_m <= near_m) & (pairs.similarity >= least))
    for first, second in near.rows.tolist():
        turned = abs((headings[first] - headings[second] + 180.0) % 360.0 - 180.0)
        if removed[first] or removed[second] or turned > _HEADING_DEG:
            continue
        if needed[second] and needed[first]:
            continue
        gone, kept = (first, second) if needed[second] else (second, first)
        removed[gone], keeper[gone], needed[kept] = True, kept, True
    return removed, keeper


def _alike(pairs: SimilarPairs, positions: Positions, *, near_m: float, far_m: float) -> SimilarPairs:
    """Choose far pairs as similar as half of the pairs of one place are, one for each two places."""
    near = pairs.similarity[pairs.distance_m <= max(near_m, THRESHOLD_M)]
    least = float(np.median(near)) if len(near) else 0.9
    far = pairs.where((pairs.distance_m >= far_m) & (pairs.similarity >= least))
    places = places_of(positions, 2.0 * THRESHOLD_M)
    seen: set[tuple[int, ...]] = set()
    chosen = np.zeros(len(far.rows), np.bool_)
    for row, (first, second) in enumerate(far.rows.tolist()):
        key = tuple(sorted((int(places[first]), int(places[second]))))
        if key not in seen and len(seen) < _MAX_ALIKE:
            seen.add(key)
            chosen[row] = True
    return far.where(chosen)


def _holes(
    listing: str | Path, root: str | Path | None, stored: Positions, radius_m: float
) -> dict[str, Any]:
    """Return the listed positions that no stored image is near to, grouped into places."""
    listed = list_source(listing, root=root, needs_paths=False)
    wanted = [Position.of(row) for row in listed.to_pylist()]
    wanted = [place for place in wanted if place.known]
    if not wanted:
        raise SourceError(f"none of {listed.num_rows} rows of {listing} has a position: give coordinates")
    uncovered = [
        place
        for place, count in zip(wanted, nearby(Positions.of(wanted), stored, radius_m).counts(), strict=True)
        if not count
    ]
    groups = places_of(uncovered, 2.0 * radius_m)
    first = np.unique(groups, return_index=True)[1] if len(groups) else np.empty(0, np.int64)
    return {
        "listed": len(wanted),
        "uncovered": len(uncovered),
        "places": [(uncovered[row], int((groups == groups[row]).sum())) for row in first.tolist()],
    }


def _write_prune_list(
    path: Path, rows: pa.Table, removed: NDArray[np.bool_], keeper: NDArray[np.int64]
) -> None:
    ids = rows["image_id"].to_pylist()
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["image_id", "kept_instead"])
    for row in np.flatnonzero(removed).tolist():
        writer.writerow([spreadsheet_safe(ids[row]), spreadsheet_safe(ids[keeper[row]])])
    replace_file(path, text.getvalue().encode("utf-8", "replace"))

"""What an atlas found as GeoJSON features (RFC 7946): degrees, longitude first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.atlas.similar_pairs import SimilarPairs
from storage.position import Positions

__all__ = ["features_of"]


def features_of(
    rows: pa.Table,
    positions: Positions,
    *,
    holes: Mapping[str, Any] | None,
    removed: NDArray[np.bool_],
    keeper: NDArray[np.int64],
    alike: SimilarPairs,
) -> list[dict[str, Any]]:
    """Return holes and prunable images as points, look-alikes as lines; those without degrees are left out.

    Args:
        rows: Of the store.
        positions: N positions of these.
        holes: Of `pipelines.atlas.job`, or None.
        removed: (N,) prunable images.
        keeper: (N,) the row that is kept instead.
        alike: Pairs of places that look alike.
    """
    degrees = positions.in_degrees()
    ids = [image_id.encode("utf-8", "replace").decode() for image_id in rows["image_id"].to_pylist()]
    features = []
    if holes is not None and holes["places"]:
        places = Positions.of([place for place, _ in holes["places"]]).in_degrees()
        for (lat, lon), (_, count) in zip(places.tolist(), holes["places"], strict=True):
            features.append(_feature("Point", [lon, lat], {"kind": "hole", "listed": count}))
    for row in np.flatnonzero(removed).tolist():
        lat, lon = degrees[row].tolist()
        about = {"kind": "near-duplicate", "image_id": ids[row], "kept_instead": ids[keeper[row]]}
        features.append(_feature("Point", [lon, lat], about))
    for (first, second), similarity, metres in zip(
        alike.rows.tolist(), alike.similarity.tolist(), alike.distance_m.tolist(), strict=True
    ):
        line = [degrees[row][::-1].tolist() for row in (first, second)]
        about = {"kind": "alike", "similarity": round(similarity, 4), "distance_m": round(metres, 1)}
        features.append(_feature("LineString", line, about | {"image_ids": [ids[first], ids[second]]}))
    return [feature for feature in features if np.isfinite(feature["geometry"]["coordinates"]).all()]


def _feature(kind: str, coordinates: list[Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }

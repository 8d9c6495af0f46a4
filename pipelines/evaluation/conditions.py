"""The conditions of a figure: everything that another run must have in common to be compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from serving.engine import QueryEngine
from storage.version import __version__

__all__ = ["DISTANCE", "conditions_of"]

DISTANCE = "Euclidean in UTM within one zone, geodesic between zones"
_ARTIFACTS = ("projection_sha256", "aggregation_sha256", "local_whitening_sha256")


def conditions_of(
    engine: QueryEngine, *, candidates: int, threshold_m: float, score: str | None
) -> dict[str, Any]:
    """Return the conditions under which an engine answers, plain values for JSON.

    Args:
        engine: The engine.
        candidates: How many hits are re-ranked; 0 for none.
        threshold_m: Distance up to which an answer is right, in metres.
        score: What candidates are ranked by, as the results say; None without re-ranking.
    """
    card, extractor = engine.store.card, engine.extractor
    return {
        "model": card.model,
        "weights_sha256": card.weights_sha256,
        "image_size": [card.preprocessing.height, card.preprocessing.width],
        "descriptor_dim": card.descriptor_dim,
        "features": card.feature_encoding,
        **{name: value for name in _ARTIFACTS if (value := getattr(card, name)) is not None},
        "precision": extractor.precision,
        "device": extractor.device.type,
        "search": engine.method,
        "score": score,
        "min_similarity": card.min_similarity,
        "candidates": candidates,
        "matching": (str(engine.matching) or "every candidate, exactly") if candidates else None,
        "threshold_m": threshold_m,
        "distance": DISTANCE,
        "store_version": engine.store.version,
        "store_format": card.format_version,
        "versions": _versions(),
    }


def _versions() -> Mapping[str, str | None]:
    return {
        "placeray": __version__,
        **{name: _version(name) for name in ("torch", "timm", "numpy", "pillow")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

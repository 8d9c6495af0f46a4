"""The conditions of a figure: everything that another run must have in common to be compared with it."""

from __future__ import annotations

from typing import Any

from pipelines.evaluation.engines import AnsweringEngine
from pipelines.evaluation.package_versions import package_versions
from pipelines.evaluation.protocols import Protocol

__all__ = ["DISTANCE", "conditions_of"]

DISTANCE = "Euclidean in UTM within one zone, geodesic between zones"
_ARTIFACTS = ("projection_sha256", "aggregation_sha256", "local_whitening_sha256")


def conditions_of(
    engine: AnsweringEngine, *, candidates: int, protocol: Protocol, score: str | None, dataset_sha256: str
) -> dict[str, Any]:
    """Return the conditions under which an engine answers, plain values for JSON.

    Args:
        engine: The engine.
        candidates: How many hits are re-ranked; 0 for none.
        protocol: Which answers are right.
        score: What candidates are ranked by, as the results say; None without re-ranking.
        dataset_sha256: See `pipelines.evaluation.dataset_digest`.
    """
    card, extractor = engine.store.card, engine.extractor
    told = {"precision": extractor.precision, "device": extractor.device.type}
    told["matching"] = str(engine.matching) or "every candidate, exactly"
    told |= getattr(engine, "told", {})
    return {
        "model": card.model,
        "weights_sha256": card.weights_sha256,
        "image_size": [card.preprocessing.height, card.preprocessing.width],
        "resize": card.preprocessing.resize,
        "descriptor_dim": card.descriptor_dim,
        "features": card.feature_encoding,
        **{name: value for name in _ARTIFACTS if (value := getattr(card, name)) is not None},
        "precision": told["precision"],
        "device": told["device"],
        "search": engine.method,
        "score": score,
        "min_similarity": card.min_similarity,
        "candidates": candidates,
        "matching": told["matching"] if candidates else None,
        "protocol": protocol.name,
        "threshold_m": protocol.threshold_m,
        "frames": None if protocol.rule == "metres" else int(protocol.tolerance),
        "distance": DISTANCE,
        "dataset_sha256": dataset_sha256,
        "store_version": engine.store.version,
        "store_format": card.format_version,
        "versions": package_versions(),
    }

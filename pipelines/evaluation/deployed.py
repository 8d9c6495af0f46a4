"""What a deployed service gives, beside exact search on full features, and which part costs what recall.

Columns, from the most exact to what users get: full features (extracted from the database's photos) and exact
search; features as they are stored; the service's search method; the service itself, whose options of
matching, budget and limits are the rest. Each part's cost is the paired difference to the column before it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

from pipelines.evaluation.comparison import compare
from pipelines.evaluation.database_photos import DatabasePhotos
from pipelines.evaluation.full_features import FullFeatures, FullFeaturesEngine
from pipelines.evaluation.result import Evaluation
from serving.engine import QueryEngine
from storage.search.methods import SearchMethod

__all__ = ["deployed_costs"]

_SAMPLE = 32  # photos of the database that must be readable
_FULL = "exact search, full features"


def deployed_costs(
    local: QueryEngine,
    service: Evaluation,
    method: str,
    measure: Callable[[QueryEngine], Evaluation],
    photos: DatabasePhotos | None = None,
) -> dict[str, Any]:
    """Measure the columns before a service's, and what each part costs.

    Args:
        local: An engine of the served store, with exact search.
        service: The evaluation through the service.
        method: The service's search method.
        measure: Evaluates an engine on the same queries.
        photos: Where the photos of the database lie now; default: where they were indexed from.

    Returns:
        `columns`: name, recall, interval of recall at 1 and milliseconds per query of each, None for full
        features, as these are extracted on the way; `costs`: part, points and interval, negative where recall
        is lost; `full_features`: whether the first column is of full features, so that the cost of the
        encoding is known.
    """
    columns: list[tuple[str, str, Evaluation]] = []
    card = local.store.card
    encoded = card.has_features and card.feature_encoding != "float16"
    features = FullFeatures(local, photos)
    if encoded and _photos_are_there(local, features):
        columns.append((_FULL, "", measure(FullFeaturesEngine(local, features))))
    stored = "exact search, features as stored" if encoded else "exact search, full features as stored"
    if not card.has_features:
        stored = "exact search, no local features"
    part = f"{card.feature_encoding} features"
    columns.append((stored, part, measure(QueryEngine(local.store, local.extractor, method="exact"))))
    if method in get_args(SearchMethod) and method != "exact":
        found: SearchMethod = method  # type: ignore[assignment]
        engine = QueryEngine(local.store, local.extractor, method=found)
        local.store.snapshot.load(found)  # no query's time has that of building the index
        name = "features as stored" if card.has_features else "no local features"
        columns.append((f"{method} search, {name}", f"{method} search", measure(engine)))
    columns.append(("the service", "options of matching and limits of the service", service))
    return {
        "columns": [_column(name, evaluation) for name, _, evaluation in columns],
        "costs": [
            {"part": part, **_cost(before, after)} for (_, _, before), (_, part, after) in pairwise(columns)
        ],
        "full_features": columns[0][0].startswith(_FULL),
    }


def _photos_are_there(engine: QueryEngine, features: FullFeatures) -> bool:
    ids = engine.store.metadata()["image_id"].to_pylist()
    step = max(1, len(ids) // _SAMPLE)
    return features.readable(engine.store.get(ids[::step][:_SAMPLE]))


def _column(name: str, evaluation: Evaluation) -> dict[str, Any]:
    stage = list(evaluation.recall)[-1]
    ms = round(1e3 * evaluation.seconds["total"] / max(1, evaluation.queries), 2)
    return {
        "name": name,
        "recall": dict(evaluation.recall[stage]),
        "interval": evaluation.intervals["recall"][stage]["1"],
        "ms_per_query": None if name == _FULL else ms,
    }


def _cost(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    at_1 = compare(before, after).differences["final"]["1"]
    return {
        "points": at_1["difference"],
        "interval": at_1["interval"],
        "won": at_1["won"],
        "lost": at_1["lost"],
    }

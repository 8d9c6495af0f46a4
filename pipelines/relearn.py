"""Learn a store's descriptors again from its stored local features, and measure what that changes.

placeray relearn --store ~/city
"""

from __future__ import annotations

import dataclasses
from typing import Any

from models.aggregation.choice import read_aggregation
from models.store_fit import require_fit
from pipelines.defaults import SPLIT, THRESHOLD_M
from pipelines.own_photos.due import measure_if_due
from pipelines.relearning import relearn_store
from storage.store import Store

__all__ = ["relearn"]


def relearn(
    store_uri: str,
    *,
    use: str | None = None,
    dataset: str | None = None,
    split: str = SPLIT,
    model: str | None = None,
    threshold_m: float = THRESHOLD_M,
) -> dict[str, Any]:
    """Replace the descriptors of a store as one new version; the former answers until then.

    Neither photos nor the network are read, unless a data set is given. A store of an older format is brought
    to the newest.

    Args:
        store_uri: The store.
        use: File of an aggregation to be used instead of a learned one.
        dataset: Data set whose database is in the store, to measure recall before and after.
        split: Of the data set.
        model: Name or weights file for the data set; default: the store's.
        threshold_m: Distance up to which an answer is right, in metres.

    Returns:
        The values of `RelearnReport`, with a data set also `recall_before` and `recall_after` of the
        descriptors alone.

    Raises:
        CardMismatch: the model is not the store's.
        AggregationRejected: the file is not an aggregation of such features.
        CorruptStore: local features cannot be read; nothing is replaced.
        StoreLocked: another process writes to the store.
    """
    aggregation = None if use is None else read_aggregation(use)
    store = Store.open(store_uri)
    require_fit(store_uri, store.card, {"model": model})
    before = _recall(store_uri, dataset, split, model, threshold_m)
    with store.lease():
        report = dataclasses.asdict(relearn_store(store, aggregation))
        measure_if_due(store)
    if before is None:
        return report
    after = _recall(store_uri, dataset, split, model, threshold_m)
    return report | {"recall_before": before, "recall_after": after}


def _recall(
    store_uri: str, dataset: str | None, split: str, model: str | None, threshold_m: float
) -> dict[str, float] | None:
    if dataset is None:
        return None
    from pipelines.evaluation.recall import measure_recall
    from pipelines.sources import open_dataset
    from serving.engine import QueryEngine

    engine = QueryEngine.open(store_uri, model=model)
    layout = open_dataset(dataset, split=split)
    return measure_recall(layout, engine, rerank=False, threshold_m=threshold_m).recall["global"]

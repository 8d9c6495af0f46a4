"""Evaluate a data set: index its database where needed, answer every query, score, report."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.names import DEFAULT_MODEL
from models.photo_limits import MAX_MEGAPIXELS
from models.runtime.execution import AS_USUAL, Execution
from models.store_fit import require_fit
from pipelines.defaults import SPLIT, THRESHOLD_M
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.report import write_report
from pipelines.evaluation.result import Evaluation
from pipelines.indexing.job import index
from pipelines.sources import open_dataset
from serving.defaults import CANDIDATES
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY, Matching
from storage.card import FeatureEncoding
from storage.errors import StoreNotFound
from storage.store import Store

__all__ = ["DatasetEvaluation", "evaluate"]


@dataclass(frozen=True, repr=False)
class DatasetEvaluation(Evaluation):
    """An evaluation, and whether its database was indexed for it.

    Attributes:
        database_rejected: Database images that could not be used; None where the store existed.
    """

    database_rejected: int | None = None


def evaluate(
    dataset: str | Path,
    *,
    store_uri: str | None = None,
    model: str | None = None,
    image_size: tuple[int, int] | None = None,
    features: FeatureEncoding | None = None,
    split: str = SPLIT,
    candidates: int = CANDIDATES,
    matching: Matching = ALL_EXACTLY,
    execution: Execution = AS_USUAL,
    threshold_m: float = THRESHOLD_M,
    follow_links: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    report: str | Path | None = None,
    progress: Callable[[int, int, int], None] = lambda done, rejected, total: None,
) -> DatasetEvaluation:
    """Evaluate a data set on its own index, which is created if missing.

    Args:
        dataset: Data set in the standard layout.
        store_uri: Store to evaluate; created from the database if missing. None uses a temporary one.
        model: Name or weights file; by default the store's, or the default model for a new store.
        image_size: Height and width of the network's input; default: the store's, or the model's own.
        features: Encoding of local features, see `storage.features.encodings`; default: the store's, or that
            of `default_encoding`.
        split: One of train, val and test.
        candidates: How many hits are re-ranked.
        matching: Options of matching.
        execution: How the model is run, while indexing too.
        threshold_m: Distance up to which an answer is right, in metres.
        follow_links: Whether symbolic links may lead out of the folders of the data set.
        max_megapixels: Largest photo, of queries and database.
        report: Folder for index.html and evaluation.json.
        progress: Called with (done, rejected, total) images while indexing, then while evaluating.

    Returns:
        The results, as attributes and as a mapping (`result["recall"]["global"]["1"]`), and every query's
        outcome.

    Raises:
        CardMismatch: a flag does not fit the store; nothing is indexed or scored.
        SourceError, StoreError, WeightsUnavailable, CannotCompile: as `index` and `measure_recall`.
    """
    layout = open_dataset(dataset, split=split)
    rejected = None
    with contextlib.ExitStack() as stack:
        uri = store_uri or stack.enter_context(tempfile.TemporaryDirectory(prefix="placeray-"))
        try:
            card = Store.open(uri).card
            require_fit(uri, card, {"image_size": image_size, "features": features, "model": model})
        except StoreNotFound:
            name = model or DEFAULT_MODEL
            made = index(
                layout.database,
                uri,
                model=name,
                image_size=image_size,
                features=features,
                execution=execution,
                follow_links=follow_links,
                max_megapixels=max_megapixels,
                progress=progress,
            )
            rejected = made.rejected
        engine = QueryEngine.open(
            uri, model=model, matching=matching, execution=execution, max_megapixels=max_megapixels
        )
        evaluation = measure_recall(
            dataset,
            engine,
            split=split,
            candidates=candidates,
            threshold_m=threshold_m,
            follow_links=follow_links,
            progress=lambda done, total: progress(done, 0, total),
        )
        result = DatasetEvaluation(**vars(evaluation), database_rejected=rejected)
        if report is not None:
            write_report(Path(report, "index.html"), evaluation, engine)
            Path(report, "evaluation.json").write_text(json.dumps(dict(result), indent=2) + "\n")
    return result

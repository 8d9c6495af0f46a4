"""Calibrates a store on labelled photos, and keeps the result in it.

placeray calibrate ~/labelled --store ~/city --elsewhere ~/photos-of-another-city
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.images import ImageRejected
from models.runtime.execution import AS_USUAL, Execution
from pipelines.calibration.fit import fit, require_promise
from pipelines.calibration.labelled import Labelled, labelled_of, unknown_of
from pipelines.calibration.rerank import find_rule
from pipelines.defaults import MAX_WRONG, SPLIT, THRESHOLD_M
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.result import Evaluation
from pipelines.sources import SourceError, list_source, open_dataset
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY, Matching, default_candidates
from serving.places.calibration import Calibration
from serving.places.conditions import ScoreConditions
from serving.places.promises import CONFIDENCE
from serving.places.rerank_rule import RerankRule
from serving.query import hits_of_place
from storage.calibration_file import CALIBRATION_FILE
from storage.search.methods import SearchMethod
from storage.store import Store

__all__ = ["calibrate"]


def calibrate(
    dataset: str | Path,
    store_uri: str,
    *,
    max_wrong: float = MAX_WRONG,
    elsewhere: str | Path | None = None,
    split: str = SPLIT,
    model: str | None = None,
    candidates: int | None = None,
    rerank: bool = True,
    matching: Matching = ALL_EXACTLY,
    method: SearchMethod | None = None,
    execution: Execution = AS_USUAL,
    threshold_m: float = THRESHOLD_M,
    progress: Callable[[int, int, int], None] = lambda done, rejected, total: None,
) -> dict[str, Any]:
    """Answer labelled photos, fit a calibration to the answers and write it into the store.

    Args:
        dataset: Data set whose database is in the store; its queries are the labelled photos.
        store_uri: The store.
        max_wrong: Share of wrong answers among those called known that is to be promised.
        elsewhere: Folder or listing of photos that were taken elsewhere; every answer to them is wrong.
        split: Of the data set.
        model: Name or weights file; default: the store's.
        candidates: How many hits are re-ranked; default: as of `QueryEngine.answer`.
        rerank: Whether they are.
        matching: Options of matching.
        method: How candidates are searched for; default: as of `QueryEngine`.
        execution: How the model is run.
        threshold_m: Distance up to which the first answer is right.
        progress: Called with (done, rejected, total).

    Returns:
        A summary, ready for JSON.

    Raises:
        TooFewPhotos: the level cannot be promised with these photos; nothing is written.
        SourceError: the data set cannot be read, or is not of this store.
        StoreError: the store cannot be read, or not be written.
    """
    store = Store.open(store_uri)
    with store.lease():  # nobody writes meanwhile, and a store that cannot be written is refused at once
        engine = QueryEngine.open(
            store_uri, model=model, method=method, matching=matching, execution=execution
        )
        candidates = default_candidates(store.card) if candidates is None else candidates
        labelled, elsewhere_photos, evaluation = _labelled(
            dataset,
            engine,
            elsewhere=elsewhere,
            split=split,
            candidates=candidates,
            rerank=rerank,
            threshold_m=threshold_m,
            progress=progress,
        )
        fitted = fit(labelled)
        require_promise(fitted, len(labelled), max_wrong)
        calibration = Calibration(
            conditions=ScoreConditions.of(
                store.card,
                matching,
                candidates=candidates,
                rerank=rerank,
                precision=engine.extractor.precision,
            ),
            rows=store.count,
            threshold_m=threshold_m,
            photos=len(labelled),
            elsewhere=elsewhere_photos,
            ranking=fitted.ranking,
            probability=fitted.probability,
            radii=fitted.radii,
            promises=fitted.promises,
            confidence=CONFIDENCE,
            max_wrong=max_wrong,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            dataset=evaluation.dataset,
            search_method=engine.method,
            rerank=_rule(evaluation, candidates) if rerank else None,
        )
        store.write_measured(CALIBRATION_FILE, calibration.to_dict())
    return _summary(calibration, fitted.tested, float(labelled.right.mean()))


def _labelled(
    dataset: str | Path,
    engine: QueryEngine,
    *,
    elsewhere: str | Path | None,
    split: str,
    candidates: int,
    rerank: bool,
    threshold_m: float,
    progress: Callable[[int, int, int], None],
) -> tuple[Labelled, int, Evaluation]:
    """Answer all photos; return the labelled answers, how many are of elsewhere, and the evaluation."""
    evaluation = measure_recall(
        open_dataset(dataset, split=split),
        engine,
        candidates=candidates,
        rerank=rerank,
        threshold_m=threshold_m,
        progress=lambda done, total: progress(done, 0, total),
    )
    hits = hits_of_place(candidates, rerank=rerank)
    labelled = labelled_of(evaluation.outcomes, hits=hits)
    if elsewhere is None:
        return labelled, 0, evaluation
    others = _elsewhere(Path(elsewhere), engine, hits, candidates, rerank, progress)
    return labelled.joined(others), len(others), evaluation


def _rule(evaluation: Evaluation, candidates: int) -> RerankRule:
    answered = max(1, evaluation.queries - evaluation.queries_rejected)
    matching_ms = 1e3 * (evaluation.seconds["fetch"] + evaluation.seconds["rerank"]) / answered
    return find_rule(evaluation.outcomes, hits=candidates, ms_per_query=round(matching_ms, 2))


def _elsewhere(
    source: Path,
    engine: QueryEngine,
    hits: int,
    candidates: int,
    rerank: bool,
    progress: Callable[[int, int, int], None],
) -> Labelled:
    """Answer photos of other places.

    Raises:
        SourceError: there are none that can be used.
    """
    listing = list_source(source).sort_by("uri")
    uris = [row["uri"] for row in listing.to_pylist() if not row["rejected"]]
    answered, answers = [], []
    stream = engine.answer_many(uris, top_k=hits, candidates=candidates, rerank=rerank)
    for number, (uri, answer) in enumerate(zip(uris, stream, strict=True), start=1):
        if not isinstance(answer, ImageRejected):
            answered.append(uri)
            answers.append(answer)
        progress(number, number - len(answered), len(uris))
    if not answers:
        raise SourceError(f"none of the photos of --elsewhere {source} can be used: check the path")
    return unknown_of(answered, answers)


def _summary(calibration: Calibration, tested: int, right: float) -> dict[str, Any]:
    return {
        "dataset": calibration.dataset,
        "photos": calibration.photos,
        "elsewhere": calibration.elsewhere,
        "tested": tested,
        "right": round(right, 4),
        "confidence": calibration.confidence,
        "max_wrong": calibration.max_wrong,
        "promises": [vars(promise) for promise in calibration.promises],
        "search_method": calibration.search_method,
        "rerank": None if calibration.rerank is None else calibration.rerank.to_dict(),
        "file": CALIBRATION_FILE,
    }

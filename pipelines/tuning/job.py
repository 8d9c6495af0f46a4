"""Chooses a service's settings on labelled photos: for a share of the best recall, or a time per query."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.runtime.execution import AS_USUAL, Execution
from models.store_fit import require_fit
from pipelines.evaluation.database_photos import DatabasePhotos
from pipelines.evaluation.intervals import paired_interval
from pipelines.evaluation.protocols import Protocol, protocol_of
from pipelines.evaluation.queries import read_queries
from pipelines.evaluation.scoring import Scoring, scoring_of
from pipelines.sources import Dataset, SourceError, list_source, open_dataset
from pipelines.tuning.encodings import compare_encodings
from pipelines.tuning.settings_file import write_settings_file
from pipelines.tuning.trials import Option, Trial, TrialPhotos, run_trial
from serving.engine import QueryEngine
from serving.matching_options import Matching, ScoreKind
from storage.search.methods import SearchMethod
from storage.store import Store

__all__ = ["tune"]

MAX_PHOTOS = 200
_CANDIDATES = (200, 50, 30, 20, 10, 5)
_APPROXIMATE_ROWS = 2_000  # below, every row is compared by each method


def tune(
    dataset: str | Path,
    store_uri: str,
    *,
    target_recall: float | None = None,
    target_ms: float | None = None,
    split: str = "test",
    protocol: str = "metres:25",
    photos: int = MAX_PHOTOS,
    model: str | None = None,
    execution: Execution = AS_USUAL,
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Measure settings of search and matching, and choose one.

    Args:
        dataset: Data set whose database is in the store and whose queries are labelled.
        store_uri: The store; only read.
        target_recall: Least share, 0..1, of the best recall at 1 of all settings; the fastest such is chosen.
        target_ms: Longest median time per query in milliseconds; the best recall of those is chosen.
        split: Split of the data set.
        protocol: See `pipelines.evaluation.protocols`.
        photos: Queries that are used at most.
        model: Name or weights file; default: the store's.
        execution: How the model is run.
        out: YAML file to write; None writes none.
        progress: Called with a sentence per trial.

    Returns:
        `photos` and `places`, `chosen` and `reference` (settings, in words too, recall, ms), `reached`,
        `difference` in points with its `interval`, `methods_tried`, `probes`, all `trials`, `encodings` with
        their recall and bytes, and `recommended_features`; both empty where the store has no local features.

    Raises:
        SourceError: no query can be scored, or both targets are given, or none.
        StoreError: the store cannot be read.
    """
    require_fit(store_uri, Store.open(store_uri).card, {"model": model})
    if (target_recall is None) == (target_ms is None):
        raise SourceError("tune needs one target: give --target-recall or --target-ms")
    engine = QueryEngine.open(store_uri, model=model, execution=execution)
    rule = protocol_of(protocol)
    layout = open_dataset(dataset, split=rule.split or split)
    shots = _photos(engine, layout, rule, photos)
    trials = _trials(engine, shots, progress)
    best = max(trials, key=lambda trial: (trial.recall, -float(np.median(trial.ms))))
    chosen, reached = _choose(trials, best, shots, target_recall, target_ms)
    paired = chosen.right.astype(np.float64) - best.right
    ends = (0.0, 0.0) if chosen is best else paired_interval(paired, shots.clusters)
    interval = [round(100.0 * end, 2) for end in ends]
    encodings = compare_encodings(
        engine, shots, chosen.option, DatabasePhotos(lambda: list_source(layout.database))
    )
    result: dict[str, Any] = {
        "store": store_uri,
        "photos": len(shots),
        "places": len(np.unique(shots.clusters)),
        "target_recall": target_recall,
        "target_ms": target_ms,
        "reached": reached,
        "chosen": _described(chosen, shots),
        "reference": _described(best, shots),
        "difference": round(100.0 * float(paired.mean()), 2),
        "interval": interval if np.isfinite(interval).all() else None,
        "methods_tried": list(dict.fromkeys(trial.option.method for trial in trials)),
        "probes": "chosen by the approximate index itself",
        "trials": [_described(trial, shots) for trial in trials],
        "encodings": encodings,
        "recommended_features": _recommended(encodings, target_recall or 1.0),
        "out": None if out is None else str(out),
    }
    if out is not None:
        write_settings_file(
            Path(out).expanduser(), {"store": store_uri, **chosen.option.to_dict()}, _comments(result)
        )
    return result


def _photos(engine: QueryEngine, layout: Dataset, protocol: Protocol, limit: int) -> TrialPhotos:
    scoring = Scoring(protocol)
    if protocol.rule == "frames" or protocol.queries is not None:
        scoring = scoring_of(protocol, layout, list_source(layout.database), list_source(layout.queries))
    queries = read_queries(
        layout.queries, only=scoring.only, max_pixels=engine.max_pixels, by_position=scoring.by_position
    )
    truth = scoring.truth(queries.rows, engine.store.metadata())
    shots = TrialPhotos(engine, queries.rows, truth, limit=limit)
    if not any(shots.positives):
        raise SourceError(
            f"none of {len(shots)} queries of {layout.name} has a right image in {engine.store.uri}: "
            "give the data set of this store"
        )
    return shots


def _trials(engine: QueryEngine, shots: TrialPhotos, progress: Callable[[str], None]) -> list[Trial]:
    """Try settings one after the other, each starting from the best so far."""
    trials: list[Trial] = []

    def attempt(option: Option) -> Trial:
        trial = run_trial(engine, shots, option)
        trials.append(trial)
        progress(f"{_words(option)}: R@1 {trial.recall:.1f}, {float(np.median(trial.ms)):.1f} ms")
        return trial

    if not engine.store.card.has_features:  # nothing to re-rank by: only the search is chosen
        for method in ("exact", *_methods(engine.store)):
            attempt(Option(method=method, candidates=0))
        return trials
    default = Matching().score_of(engine.store.card)
    kinds: tuple[ScoreKind, ...] = ("count", "votes") if default == "count" else ("votes", "count")
    scored = [attempt(Option(matching=Matching(score=kind))) for kind in kinds]
    base = max(scored, key=lambda trial: trial.recall).option  # the first where both are equal
    for method in _methods(engine.store):
        found = attempt(dataclasses.replace(base, method=method))
        if found.recall >= max(trial.recall for trial in scored) and _faster(found, trials):
            base = found.option
    for candidates in _CANDIDATES:
        plain = attempt(dataclasses.replace(base, candidates=candidates)).option
        if candidates in (200, 50, 20):
            early = dataclasses.replace(plain.matching, stop_early=True)
            attempt(dataclasses.replace(plain, matching=early))
    attempt(dataclasses.replace(base, matching=dataclasses.replace(base.matching, precision="fast")))
    return trials


def _methods(store: Store) -> list[SearchMethod]:
    """Return the search methods beside the exact one that a store can be searched with."""
    methods: list[SearchMethod] = ["ivf"] if store.count >= _APPROXIMATE_ROWS else []
    if store.card.code_bits is not None:
        methods.append("codes")
    return [*methods, "lance"] if store.has_index else methods


def _faster(trial: Trial, others: list[Trial]) -> bool:
    return float(np.median(trial.ms)) <= min(float(np.median(other.ms)) for other in others)


def _choose(
    trials: list[Trial],
    best: Trial,
    shots: TrialPhotos,
    target_recall: float | None,
    target_ms: float | None,
) -> tuple[Trial, bool]:
    if target_recall is not None:
        good = [trial for trial in trials if trial.recall >= target_recall * best.recall - 1e-9]
        return min(good, key=lambda trial: float(np.median(trial.ms))), True
    assert target_ms is not None
    fast = [trial for trial in trials if float(np.median(trial.ms)) + shots.extract_ms <= target_ms]
    if fast:
        return max(fast, key=lambda trial: (trial.recall, -float(np.median(trial.ms)))), True
    return min(trials, key=lambda trial: float(np.median(trial.ms))), False


def _described(trial: Trial, shots: TrialPhotos) -> dict[str, Any]:
    return {
        "setting": _words(trial.option),
        **trial.option.to_dict(),
        "recall": round(trial.recall, 2),
        "ms": round(float(np.median(trial.ms)) + shots.extract_ms, 2),
        "ms_search_and_matching": round(float(np.median(trial.ms)), 2),
    }


def _recommended(encodings: list[dict[str, Any]], share: float) -> dict[str, Any] | None:
    """Return the smallest encoding that keeps the share of recall, and how much smaller it is."""
    if not encodings:
        return None
    full = encodings[0]
    kept = [one for one in encodings if one["recall"] >= share * full["recall"] - 1e-9]
    smallest = min(kept, key=lambda one: int(one["bytes_per_image"]))
    return {
        "features": smallest["features"],
        "times_smaller": round(full["bytes_per_image"] / smallest["bytes_per_image"], 2),
        "points": round(smallest["recall"] - full["recall"], 2),
    }


def _words(option: Option) -> str:
    if not option.candidates:
        return f"{option.method} search, no re-ranking"
    return f"{option.method} search, {option.candidates} candidates, {option.matching}"


def _comments(result: dict[str, Any]) -> list[str]:
    chosen, reference = result["chosen"], result["reference"]
    lines = [
        f"Chosen by placeray tune on {result['photos']} labelled photos.",
        f"R@1 {chosen['recall']} %, {chosen['ms']} ms per query; the best of all settings: "
        f"{reference['recall']} %, {reference['ms']} ms.",
    ]
    tried = ", ".join(result["methods_tried"])
    lines.append(f"Search methods tried: {tried}; the approximate index chooses its probes itself.")
    if not result["reached"]:
        lines.append(f"No setting reached {result['target_ms']:g} ms; this is the fastest.")
    if recommended := result["recommended_features"]:
        lines.append(
            f"A new store with --features {recommended['features']} would be {recommended['times_smaller']} "
            f"times smaller, at {recommended['points']:+} points."
        )
    return lines

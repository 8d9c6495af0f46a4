"""Runs the engine with a rule in its store: the answers that were worked out, and how long each way takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.rerank_judging import halves
from benchmarks.rerank_sets import Tried
from pipelines.calibration.fit import fit
from pipelines.calibration.labelled import labelled_of
from pipelines.calibration.rerank import rule_of
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY
from serving.places.calibration import Calibration
from serving.places.conditions import ScoreConditions
from serving.places.promises import CONFIDENCE, Promise
from serving.places.rerank_rule import RerankRule
from serving.query import Rerank
from storage.calibration_file import CALIBRATION_FILE
from storage.store import Store

__all__ = ["measure_engine"]

ROUNDS = 3
_WAYS: dict[str, Rerank] = {"never": False, "always": True, "auto": "auto"}


def measure_engine(tried: Tried, *, seed: int = 0) -> dict[str, Any]:
    """Return milliseconds per query by each way with the rule of one half of a set, and print them.

    Every judged query is answered by each way in turn, `ROUNDS` times; the fastest round of a query counts.

    Args:
        tried: The set.
        seed: Of the split in halves; the first half's rule is used for the other.

    Raises:
        AssertionError: the engine's answer by the rule is another than the one that was worked out.
    """
    calibrating, judged = halves(tried.trials.places, seed)
    rule = rule_of(tried.trials.take(calibrating), ms_per_query=0.0)
    engine = _calibrated(tried, calibrating, rule)
    assert engine.rerank_rule() == rule, "the store's rule is another than the one that was found"
    took_ms: dict[str, list[float]] = {way: [] for way in _WAYS}
    matched = 0
    chosen = tried.trials.chosen(rule)
    for query in judged.tolist():
        outcome = tried.outcomes[query]
        fastest = dict.fromkeys(_WAYS, np.inf)
        for _ in range(ROUNDS):
            for way, rerank in _WAYS.items():
                answer = engine.answer(outcome.uri, top_k=1, rerank=rerank)
                fastest[way] = min(fastest[way], answer.timings_ms["total"])
                row = {"never": 0, "always": 1, "auto": chosen[query]}[way]
                expected = outcome.matches[tried.trials.first[row, query]].record.image_id
                assert answer.matches[0].record.image_id == expected, f"{way} {outcome.uri}"
        matched += answer.reranked or 0  # of the last way, auto
        for way, ms in fastest.items():
            took_ms[way].append(ms)
    left = tried.trials.left(rule)[judged]
    assert matched == int(tried.trials.matched[judged][~left].sum()), "candidates matched"
    means = {way: float(np.mean(values)) for way, values in took_ms.items()}
    figures = {
        "rule": rule.to_dict(),
        "queries": len(judged),
        "equal_answers": len(judged),
        "matched": round(matched / len(judged), 1),
        "ms": {way: round(ms, 2) for way, ms in means.items()},
        "saved_ms": round(means["always"] - means["auto"], 2),
        "auto_over_always": round(means["auto"] / means["always"], 3),
        "never_over_always": round(means["never"] / means["always"], 3),
    }
    print(
        f"{tried.name:<28}{figures['ms']} ms per query, {rule.mode}, saved {figures['saved_ms']}", flush=True
    )
    return figures


def _calibrated(tried: Tried, rows: np.ndarray, rule: RerankRule) -> QueryEngine:
    """Return an engine whose store holds a rule.

    The order and the radii are fitted to the same queries; the promise, which few photos allow, is none.
    """
    engine = QueryEngine.open(tried.uri)
    labelled = labelled_of([tried.outcomes[row] for row in rows], hits=tried.candidates)
    fitted = fit(labelled)
    calibration = Calibration(
        conditions=ScoreConditions.of(
            engine.store.card,
            ALL_EXACTLY,
            candidates=tried.candidates,
            rerank=True,
            precision=engine.extractor.precision,
        ),
        rows=engine.store.count,
        threshold_m=25.0,
        photos=len(labelled),
        elsewhere=0,
        ranking=fitted.ranking,
        probability=fitted.probability,
        radii=fitted.radii,
        promises=(Promise(0.99, None, len(labelled), 0, 0.99),),
        confidence=CONFIDENCE,
        max_wrong=0.99,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=tried.name,
        search_method=engine.method,
        rerank=rule,
    )
    store = Store.open(tried.uri)
    with store.lease():
        store.write_measured(CALIBRATION_FILE, calibration.to_dict())
    return QueryEngine.open(tried.uri)

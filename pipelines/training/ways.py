"""Measures a model in each way it can be used, and chooses one: which descriptors, and which score."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.aggregation.choice import GEM, default_aggregation
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.result import Evaluation
from pipelines.evaluation.sign_test import p_value_of
from pipelines.indexing.job import index
from pipelines.progress import ProgressBar
from pipelines.relearning import relearn_store
from pipelines.sources import open_dataset
from pipelines.training.comparison import STAGES, by_stage
from pipelines.training.data import DataFolders
from pipelines.training.rankings import AggregationKind
from pipelines.training.settings import TrainingSettings
from serving.engine import QueryEngine
from serving.matching_options import Matching, ScoreKind, default_score
from storage.store import Store

__all__ = ["Way", "best_way", "gain_over_best", "measure_ways", "recalls_of"]

_SCORES: tuple[ScoreKind, ...] = ("votes", "count")
_CHANCE = 0.05


@dataclass(frozen=True)
class Way:
    """One way to use a model, and its recall.

    Attributes:
        aggregation: `learned` or `gem`: what makes the descriptors.
        score: `votes` or `count`: what candidates are ranked by.
        default: Whether both are what the model is used with unless a flag says otherwise.
        evaluation: On the validation split.
    """

    aggregation: AggregationKind
    score: ScoreKind
    default: bool
    evaluation: Evaluation

    @property
    def order(self) -> tuple[float, float, bool]:
        """The order of ways: R@1 of descriptors and after re-ranking in sum, then R@5, then the default."""
        recall = by_stage(self.evaluation)
        first, fifth = (sum(values[k] for values in recall.values()) for k in ("1", "5"))
        return round(first, 6), round(fifth, 6), self.default


def measure_ways(
    data: DataFolders,
    model: str,
    settings: TrainingSettings,
    selected: frozenset[str],
    *,
    name: str,
    quiet: bool,
) -> tuple[Way, ...]:
    """Index the validation database with a model and measure its recall through the query engine.

    Measured are both kinds of descriptors, each with both scores.

    Args:
        data: The data sets.
        model: Name or weights file.
        settings: The recipe.
        selected: Paths of the queries.
        name: Of the model, for the progress bar.
        quiet: Show no progress.

    Raises:
        As `index` and `measure_recall`.
    """
    photos: dict[str, Any] = {"max_megapixels": settings.max_megapixels}
    with tempfile.TemporaryDirectory(prefix="placeray-finetune-") as store:
        database = open_dataset(data.val, split=data.val_split).database
        with ProgressBar(f"{name}: index", quiet=quiet) as bar:
            index(
                database,
                store,
                model=model,
                image_size=settings.image_size,
                aggregation=GEM,
                progress=bar.update,
                follow_links=data.follow_links,
                **photos,
            )

        def measure(aggregation: AggregationKind, score: ScoreKind) -> Way:
            engine = QueryEngine.open(store, model=model, matching=Matching(score=score), **photos)
            with ProgressBar(f"{name}: {aggregation}, {score}", quiet=quiet) as bar:
                evaluation = measure_recall(
                    data.val,
                    engine,
                    split=data.val_split,
                    candidates=settings.val_candidates,
                    threshold_m=settings.threshold_m,
                    only=selected,
                    follow_links=data.follow_links,
                    progress=lambda done, total: bar.update(done, 0, total),
                )
            card = engine.extractor.card
            usual = (default_aggregation(card), default_score(engine.store.card))
            return Way(aggregation, score, (aggregation, score) == usual, evaluation)

        opened = Store.open(store)
        usual = default_score(opened.card)
        (other,) = (score for score in _SCORES if score != usual)
        if not opened.card.has_features:
            return (measure("gem", usual),)
        ways = [measure("gem", usual), measure("gem", other)]
        with opened.lease():
            relearn_store(opened)
        return (*ways, measure("learned", usual), measure("learned", other))


def best_way(ways: tuple[Way, ...], start: tuple[Way, ...]) -> Way:
    """Return the way with the highest recall, or the usual one if the difference may be chance.

    A few validation photos prefer one of four ways by luck, and another city then pays for it. So the way
    stays that is the default of the model that training starts from, unless the two-sided sign test over the
    photos, by the number of stages at which the first answer is right, gives less than 5 %.

    Args:
        ways: Of one model.
        start: Of the model that training starts from.
    """
    best = max(ways, key=lambda way: way.order)
    default = next(((way.aggregation, way.score) for way in start if way.default), None)
    usual = next((way for way in ways if (way.aggregation, way.score) == default), best)
    changes = [
        now - was for was, now in zip(_stages_right(usual), _stages_right(best), strict=True) if now != was
    ]
    gained = sum(change > 0 for change in changes)
    return best if p_value_of(gained, len(changes) - gained) < _CHANCE else usual


def _stages_right(way: Way) -> list[int]:
    """Return for each query whether the first answer was right before re-ranking, plus whether after it."""
    return [
        (one.first_hit_global == 1) + (one.first_hit_reranked == 1)
        for one in sorted(way.evaluation.outcomes, key=lambda one: one.uri)
    ]


def gain_over_best(after: Way, start: tuple[Way, ...]) -> dict[str, float | str]:
    """Return what training gained over the best way of the model that it started from, lucky or not.

    Args:
        after: The way that the trained model is used.
        start: The ways of the model that training started from.

    Returns:
        `aggregation` and `score` of that way, and the points of R@1 gained over it before re-ranking
        (`global`) and after it (`reranked`; the same where the model gives nothing to re-rank by).
    """
    best = max(start, key=lambda way: way.order)
    now, was = by_stage(after.evaluation), by_stage(best.evaluation)
    gain = {stage: round(now[stage]["1"] - was[stage]["1"], 2) for stage in STAGES}
    return {"aggregation": best.aggregation, "score": best.score, **gain}


def recalls_of(ways: tuple[Way, ...]) -> dict[str, Mapping[str, float]]:
    """Return R@1 before and after re-ranking of each way, for the report."""
    return {
        f"{way.aggregation}, {way.score}": {
            stage: values["1"] for stage, values in by_stage(way.evaluation).items()
        }
        for way in ways
    }

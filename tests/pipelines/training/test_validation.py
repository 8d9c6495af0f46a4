"""Recall during training: equal to the query engine, for any number of workers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.aggregation import Aggregation
from models.matching.mutual import mutual_neighbours, mutual_nn_count
from models.matching.votes import vote_scores
from models.weights import load_extractor
from pipelines.evaluation.recall import measure_recall
from pipelines.sources import list_source
from pipelines.training.data import open_training_set
from pipelines.training.loop import TrainingLoop
from pipelines.training.rankings import Ranking, Recall, best_ranking, rankings_of
from pipelines.training.validation import ValidationSet, recall_of
from pipelines.training.worker import trainable_model
from pipelines.training.worker_group import WorkerGroup
from serving.engine import QueryEngine
from storage.errors import OutOfSpace
from storage.store import Store
from tests.support.city_store import commit_photos
from tests.support.training_city import tiny_settings, write_city, write_tiny_vit


class Drawn:
    """Random descriptors and features by row, of two or three kinds of place."""

    def __init__(self, rows: int, *, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.descriptors = F.normalize(torch.randn(rows, 8, generator=generator), dim=-1)
        features = F.normalize(torch.randn(rows, 3, 4, 6, generator=generator), dim=-1)
        self.features = features.half().float()  # what is stored is half precision
        self.requested: list[int] = []

    def __call__(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        assert len(rows) <= 8
        self.requested += rows.tolist()
        return self.descriptors[rows], self.features[rows]


def by_hand(
    truth: ValidationSet, queries: Drawn, database: Drawn, candidates: int, ranking: Ranking
) -> tuple[float, float, float, float]:
    hits = np.zeros(4)
    stored, asked = database.descriptors, queries.descriptors
    if ranking.aggregation == "learned":
        learned = Aggregation.fit([database.features.numpy().astype(np.float16)])
        stored, asked = (
            torch.from_numpy(learned.describe(side.features.numpy().astype(np.float16)))
            for side in (database, queries)
        )
    for positives, row in zip(truth.positives, truth.queries, strict=True):
        similarity = stored @ asked[row]
        top = sorted(range(truth.database), key=lambda i: (-float(similarity[i]), i))[:candidates]
        query, others = queries.features[row], database.features[top]
        if ranking.score == "votes":
            counts = vote_scores(*mutual_neighbours(query, others), (3, 4)).tolist()
        else:
            counts = mutual_nn_count(query, others, min_similarity=ranking.floor).tolist()
        ranked = [top[i] for i in sorted(range(len(top)), key=lambda i: (-counts[i], i))]
        for column, (order, k) in enumerate(((top, 1), (top, 5), (ranked, 1), (ranked, 5))):
            hits[column] += bool(positives & set(order[:k]))
    return tuple((100 * hits / len(truth.queries)).round(4).tolist())


@pytest.mark.parametrize("seed", range(3))
def test_recall_equals_search_and_counting_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = Drawn(50, seed=seed), Drawn(37, seed=seed + 100)
    rows = np.sort(rng.choice(50, 41, replace=False))
    positives = tuple(frozenset(rng.choice(37, rng.integers(0, 6), replace=False).tolist()) for _ in rows)
    truth = ValidationSet(rows, 37, positives)
    rankings = [*rankings_of(None), *rankings_of(0.3), Ranking("gem", "count", 0.7)]
    recalls = recall_of(truth, queries, database, group=WorkerGroup(), candidates=15, rankings=rankings)
    expected = [by_hand(truth, queries, database, 15, ranking) for ranking in rankings]
    assert [tuple(recall) for recall in recalls] == expected, f"seed {seed}"
    assert len(set(expected)) > 1
    assert database.requested == list(range(37))
    assert queries.requested == rows.tolist()


def test_recall_in_training_equals_the_query_engine(tmp_path: Path) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=9)
    vit = write_tiny_vit(tmp_path / "vit.safetensors")
    settings = tiny_settings(vit, val_candidates=9)
    model, card = trainable_model(settings)
    sets = [open_training_set(city, split=split) for split in ("train", "val")]
    loop = TrainingLoop(model, card.preprocessing, settings, *sets)
    inside = loop.validate([Ranking("gem", "count")])[0]
    loop.close()
    extractor = load_extractor(str(vit), image_size=settings.image_size)
    store = Store.create(tmp_path / "store", extractor.card)
    with store.lease():
        commit_photos(store, extractor, list_source(city / "images" / "val" / "database"))
    engine = QueryEngine.open(store.uri, model=str(vit))
    outside = measure_recall(city, engine, split="val", candidates=9).recall
    assert inside.global_1 == pytest.approx(outside["global"]["1"], abs=0.01)
    assert inside.global_5 == pytest.approx(outside["global"]["5"], abs=0.01)
    assert inside.reranked_1 == pytest.approx(outside["reranked"]["1"], abs=0.01)
    assert inside.reranked_5 == pytest.approx(outside["reranked"]["5"], abs=0.01)
    assert 0 < inside.global_1 < inside.reranked_1


def test_full_temporary_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    truth = ValidationSet(np.arange(2), 3, (frozenset({0}), frozenset({1})))
    with pytest.raises(OutOfSpace, match="TMPDIR"):
        recall_of(
            *(truth, Drawn(2, seed=0), Drawn(3, seed=1)),
            group=WorkerGroup(),
            candidates=3,
            rankings=[Ranking("gem", "count")],
        )


def test_the_best_ranking_is_that_of_both_stages_and_of_equal_ones_the_first() -> None:
    rankings = rankings_of(0.6)
    recalls = [Recall(50, 90, 80, 90), Recall(50, 90, 80, 99), Recall(60, 90, 79, 90), Recall(60, 90, 79, 90)]
    assert best_ranking(rankings, recalls) == (Ranking("learned", "count", 0.6), recalls[2])
    assert recalls[1].score > recalls[2].score

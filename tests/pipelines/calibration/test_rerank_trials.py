"""What re-ranking did to labelled queries, and what a rule makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.calibration.rerank_trials import BLENDS, Trials
from pipelines.evaluation.result import QueryOutcome
from serving.places.rerank_rule import RerankRule
from storage.position import Position
from tests.serving.places.test_rerank_rule import outcome


def test_trials_hold_the_first_answer_of_each_way() -> None:
    """The more similar candidate is right; votes prefer the other one, but by less than a blend weighs."""
    harmed = outcome(0.3, first_right=True, reranked_right=False)
    trials = Trials.of([harmed, outcome(0.5, first_right=True, reranked_right=True)], hits=50)
    assert trials.margins == pytest.approx([0.3, 0.5])
    assert trials.before.tolist() == [True, True]
    assert trials.after(0.0).tolist() == [False, True]
    assert trials.matched.tolist() == [2, 2]
    assert [harmed.right[row] for row in trials.first[:, 0]] == trials.right[:, 0].tolist()
    assert trials.first.shape == (1 + len(BLENDS), 2)


def test_only_the_most_similar_candidates_count() -> None:
    corrected = outcome(0.3, first_right=False, reranked_right=True)
    assert Trials.of([corrected], hits=2).after(0.0).tolist() == [True]
    alone = Trials.of([corrected], hits=1)
    assert (alone.after(0.0).tolist(), alone.matched.tolist(), alone.margins.tolist()) == (
        [False],
        [1],
        [0.0],
    )


def test_queries_without_an_answer_are_left_out() -> None:
    nothing = QueryOutcome("q.jpg", Position(), "bad", 1, (), None, None)
    assert len(Trials.of([nothing], hits=50)) == 0
    assert Trials.of([nothing], hits=50).after(0.3).shape == (0,)


def test_a_rule_answers_clear_queries_without_re_ranking() -> None:
    clear = outcome(0.5, first_right=True, reranked_right=False)
    doubtful = outcome(0.1, first_right=False, reranked_right=True)
    trials = Trials.of([clear, doubtful], hits=50)
    assert trials.right_by(RerankRule("below", margin=0.3)).tolist() == [True, True]
    assert trials.left(RerankRule("below", margin=0.3)).tolist() == [True, False]
    assert trials.right_by(RerankRule("all")).tolist() == [False, True]
    assert trials.right_by(RerankRule("none")).tolist() == [True, False]
    assert trials.take(np.array([1])).right_by(RerankRule("none")).tolist() == [False]

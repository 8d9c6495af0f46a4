"""Mining: what each strategy chooses, never a negative near its query, and resuming exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.training.errors import MiningRejected
from pipelines.training.mining import MiningState, Round, draw_round, mine, msls_weights
from pipelines.training.neighbours import Neighbours, find_neighbours
from pipelines.training.settings import Strategy
from tests.support.training_city import photo_set

STRATEGIES: tuple[Strategy, ...] = ("partial", "full", "random", "msls_weighted")


class Town:
    """Queries and database photos at random places, with random descriptors."""

    def __init__(self, seed: int, *, queries: int = 20, database: int = 60, negatives: int = 2) -> None:
        rng = np.random.default_rng(seed)
        self.query_m = rng.uniform(0, 120, (queries, 2))
        self.database_m = rng.uniform(0, 120, (database, 2))
        self.database_m[: queries // 2] = self.query_m[: queries // 2] + rng.uniform(-6, 6, (queries // 2, 2))
        self.queries, self.database = (unit(rng.normal(size=(size, 8))) for size in (queries, database))
        self.neighbours = find_neighbours(
            photo_set(self.query_m), photo_set(self.database_m), negatives=negatives
        )
        self.distance_m = np.linalg.norm(self.query_m[:, None] - self.database_m[None], axis=2)
        self.similarity = self.queries @ self.database.T

    def round(
        self, state: MiningState, *, queries: int = 20, sampled: int = 30, negatives: int = 2
    ) -> tuple[NDArray[np.int64], MiningState]:
        weights = np.arange(1.0, len(self.queries) + 1) if state.strategy == "msls_weighted" else None
        drawn = draw_round(self.neighbours, state, queries=queries, sampled=sampled, weights=weights)
        descriptors = self.queries[drawn.queries], self.database[drawn.database]
        return mine(drawn, self.neighbours, state, *descriptors, negatives=negatives, sampled=sampled)


def unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    strategy=st.sampled_from(STRATEGIES),
    sampled=st.integers(1, 70),
    negatives=st.integers(1, 10),
)
def test_no_negative_is_near_its_query_and_every_positive_is(
    seed: int, strategy: Strategy, sampled: int, negatives: int
) -> None:
    town = Town(seed, negatives=negatives)
    state = MiningState(strategy, seed=seed)
    for _ in range(3):
        triplets, state = town.round(state, sampled=sampled, negatives=negatives)
        assert triplets.shape == (len(town.neighbours.usable), 2 + negatives), seed
        assert sorted(triplets[:, 0]) == town.neighbours.usable.tolist(), seed
        for query, positive, *others in triplets:
            near = np.flatnonzero(town.distance_m[query] <= 10)
            assert positive == near[np.argmax(town.similarity[query, near])], seed
            assert len(set(others)) == negatives, seed
            assert (town.distance_m[query, others] > 25).all(), seed


@pytest.mark.parametrize("strategy", ["partial", "full", "msls_weighted"])
def test_negatives_are_the_hardest_of_all_when_all_are_sampled(strategy: Strategy) -> None:
    town = Town(1, negatives=3)
    triplets, _ = town.round(MiningState(strategy), sampled=60, negatives=3)
    for query, _, *others in triplets:
        far = np.flatnonzero(town.distance_m[query] > 25)
        assert others == far[np.argsort(-town.similarity[query, far])][:3].tolist()


def test_partial_takes_the_hardest_of_the_sampled_photos_only() -> None:
    town, state = Town(2), MiningState("partial", seed=3)
    drawn = draw_round(town.neighbours, state, queries=6, sampled=25)
    assert len(drawn.queries) == len(set(drawn.queries)) == 6
    assert len(drawn.sampled) == len(set(drawn.sampled)) == 25
    positives = {int(row) for query in drawn.queries for row in town.neighbours.positives(int(query))}
    assert drawn.database.tolist() == sorted(positives | set(drawn.sampled.tolist()))
    triplets, _ = town.round(state, queries=6, sampled=25)
    for query, _, *others in triplets:
        far = drawn.sampled[town.distance_m[query, drawn.sampled] > 25]
        assert others == far[np.argsort(-town.similarity[query, far])][:2].tolist()


def test_full_keeps_the_hardest_of_former_rounds() -> None:
    town, state = Town(4), MiningState("full", seed=5)
    hardest = np.full(20, -np.inf)
    for _ in range(200):
        triplets, state = town.round(state, sampled=4)
        similarity = town.similarity[triplets[:, 0], triplets[:, 2]]
        assert (similarity >= hardest[triplets[:, 0]]).all()
        hardest[triplets[:, 0]] = similarity
    best = [town.similarity[q, town.distance_m[q] > 25].max() for q in town.neighbours.usable]
    assert hardest[town.neighbours.usable] == pytest.approx(best)
    assert state.hardest[int(triplets[0, 0])] == tuple(triplets[0, 2:])


def test_random_needs_descriptors_of_positives_only_and_reaches_every_negative() -> None:
    town, state = Town(6), MiningState("random")
    query, seen = int(town.neighbours.usable[0]), set()
    drawn = draw_round(town.neighbours, state)
    positives = np.concatenate([town.neighbours.positives(int(q)) for q in drawn.queries])
    assert (drawn.database.tolist(), drawn.sampled.size) == (np.unique(positives).tolist(), 0)
    for _ in range(300):
        triplets, state = town.round(state)
        seen |= set(triplets[triplets[:, 0] == query][0, 2:])
    assert seen == set(np.flatnonzero(town.distance_m[query] > 25))


def test_too_few_far_photos_in_the_sample_are_filled_from_beyond_25_m() -> None:
    positions = np.array([[0.0, 0.0]] + [[5.0 + i / 10, 0.0] for i in range(50)] + [[100.0, 0], [200.0, 0]])
    neighbours = find_neighbours(photo_set(positions[:1]), photo_set(positions[1:]))
    rng = np.random.default_rng(7)
    for round_number in range(30):
        state = MiningState("partial", seed=8, round=round_number)
        drawn = draw_round(neighbours, state, sampled=2)
        descriptors = unit(rng.normal(size=(len(drawn.database), 4)))
        triplets, _ = mine(drawn, neighbours, state, descriptors[:1], descriptors)
        assert sorted(triplets[0, 2:]) == [50, 51]


def test_queries_at_one_place_draw_their_own_negatives() -> None:
    positions = np.array([[0.0, 0.0]] * 8 + [[100.0 * i, 0.0] for i in range(1, 200)])
    neighbours = find_neighbours(photo_set(positions[:8]), photo_set(positions))
    for strategy in STRATEGIES[1:3]:
        state = MiningState(strategy)
        drawn = draw_round(neighbours, state)
        descriptors = np.ones((len(drawn.database), 1))
        triplets, _ = mine(drawn, neighbours, state, descriptors[:8], descriptors, sampled=20)
        assert len({tuple(row) for row in triplets[:, 2:].tolist()}) >= 7, strategy


def test_weights_decide_how_often_a_query_is_drawn() -> None:
    neighbours = Town(9).neighbours
    weights = np.zeros(20)
    rare, common = neighbours.usable[:2]
    weights[rare], weights[common] = 1.0, 9.0
    drawn = [
        draw_round(neighbours, MiningState("msls_weighted", round=i), queries=1, weights=weights).queries[0]
        for i in range(400)
    ]
    assert set(drawn) == {rare, common}
    assert 0.84 < np.mean(np.array(drawn) == common) < 0.96
    every = draw_round(neighbours, MiningState("msls_weighted"), weights=weights).queries
    assert sorted(every) == sorted([rare, common])


def test_msls_weights_follow_the_formula() -> None:
    night, sideways = np.array([True, False, False, False]), np.array([True, True, False, False])
    assert msls_weights(night, sideways).tolist() == [1 + 4 + 2, 1 + 2, 1, 1]
    assert msls_weights(night & False, sideways & False).tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="night"):
        msls_weights(night, sideways[:2])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resuming_from_json_continues_exactly(strategy: Strategy) -> None:
    town, state = Town(10), MiningState(strategy, seed=11)
    undisturbed = []
    for _ in range(6):
        triplets, state = town.round(state, queries=5, sampled=9)
        undisturbed.append(triplets.tolist())
    assert len({json.dumps(triplets) for triplets in undisturbed}) == 6
    resumed = MiningState(strategy, seed=11)
    for number in range(6):
        resumed = MiningState.from_dict(json.loads(json.dumps(resumed.to_dict())))
        triplets, resumed = town.round(resumed, queries=5, sampled=9)
        assert triplets.tolist() == undisturbed[number], number
    assert resumed == state
    assert town.round(MiningState(strategy, seed=12), queries=5)[0].tolist() != undisturbed[0]


def test_mining_does_not_change_its_state_argument() -> None:
    town, state = Town(13), MiningState("full")
    first, later = town.round(state)
    assert (state.round, state.hardest, later.round) == (0, {}, 1)
    assert town.round(state)[0].tolist() == first.tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": "hardest"},
        {"seed": -1},
        {"round": None},
        {"hardest": {"x": [1]}},
        {"hardest": {"1": []}},
        {"hardest": {"1": [-2]}},
        {"hardest": [1]},
    ],
)
def test_damaged_state_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MiningRejected) as caught:
        MiningState.from_dict(MiningState().to_dict() | change)
    assert caught.value.reason == "bad_state"
    assert "another checkpoint" in str(caught.value)


@pytest.mark.parametrize("hardest", [{20: (1, 2)}, {1: (1, 60)}])
def test_state_of_other_data_is_refused(hardest: dict[int, tuple[int, ...]]) -> None:
    with pytest.raises(MiningRejected, match="other data"):
        draw_round(Town(14).neighbours, MiningState("full", hardest=hardest))


def test_descriptors_of_wrong_shape_are_refused() -> None:
    town, state = Town(15), MiningState()
    drawn = draw_round(town.neighbours, state)
    queries, database = town.queries[drawn.queries], town.database[drawn.database]
    broken = database.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        mine(drawn, town.neighbours, state, queries, broken)
    for pair in (
        (queries[1:], database),
        (queries, database[1:]),
        (queries[:, 1:], database),
        (queries[0], database),
    ):
        with pytest.raises(ValueError, match="descriptors"):
            mine(drawn, town.neighbours, state, *pair)
    with pytest.raises(ValueError, match="negatives 3 must be 1 to 2"):
        mine(drawn, town.neighbours, state, queries, database, negatives=3)


def test_invalid_options_are_refused() -> None:
    neighbours: Neighbours = Town(16).neighbours
    for state, weights in (
        (MiningState(), np.ones(20)),
        (MiningState("msls_weighted"), None),
        (MiningState("msls_weighted"), np.ones(19)),
        (MiningState("msls_weighted"), np.zeros(20)),
        (MiningState("msls_weighted"), np.full(20, np.nan)),
    ):
        with pytest.raises(ValueError, match="weight"):
            draw_round(neighbours, state, weights=weights)
    for queries, sampled in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            draw_round(neighbours, MiningState(), queries=queries, sampled=sampled)
    with pytest.raises(ValueError, match="partial, full, random, msls_weighted"):
        MiningState("hard")  # type: ignore[arg-type]


def test_float16_descriptors_mine_as_their_float32_values() -> None:
    town, state = Town(17), MiningState()
    drawn: Round = draw_round(town.neighbours, state)
    half = town.queries[drawn.queries].astype(np.float16), town.database[drawn.database].astype(np.float16)
    triplets, _ = mine(drawn, town.neighbours, state, *half)
    full, _ = mine(drawn, town.neighbours, state, *(part.astype(np.float32) for part in half))
    assert triplets.tolist() == full.tolist()

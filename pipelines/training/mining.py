"""Mining of triplets: a query, its best positive, and its hardest negatives.

Lu et al., "Towards Seamless Adaptation of Pre-trained Models for Visual Place Recognition", ICLR 2024,
section 4.1 (positives within 10 m, negatives beyond 25 m); mining by rounds with a cache after Arandjelovic
et al., "NetVLAD", CVPR 2016, section 4, and by weighted queries after Warburg et al., "Mapillary Street-Level
Sequences", CVPR 2020, section 5.

A round has two steps: `draw_round` chooses the photos, the caller computes their descriptors, alone or on
many workers, and `mine` makes the triplets. Both functions depend on their arguments alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.training.errors import MiningRejected
from pipelines.training.neighbours import Neighbours
from pipelines.training.settings import Strategy

__all__ = ["MiningState", "Round", "draw_round", "mine", "msls_weights"]

Indices = NDArray[np.int64]

# Similarities held at once, about 16 MiB.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class MiningState:
    """The state of mining: with the same data, the next rounds follow from it.

    Each round draws from a generator seeded by (seed, round), so a checkpoint of these few values resumes
    exactly, and workers that share it draw the same.

    Attributes:
        strategy: `partial` mines among photos sampled once per round; `msls_weighted` does so for queries
            drawn by weight; `full` mines among photos sampled for each query and its hardest so far; `random`
            draws negatives at random.
        seed: Of every draw.
        round: Rounds mined so far.
        hardest: For `full`, the hardest negatives of each query so far.
    """

    strategy: Strategy = "partial"
    seed: int = 0
    round: int = 0
    hardest: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise ValueError(f"no strategy {self.strategy!r}: use one of {', '.join(get_args(Strategy))}")
        if self.seed < 0 or self.round < 0:
            raise ValueError(f"seed {self.seed} and round {self.round} must be 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = dataclasses.asdict(self)
        return values | {"hardest": {str(query): list(rows) for query, rows in self.hardest.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MiningState:
        """Read `to_dict` back, also after JSON.

        Raises:
            MiningRejected: the values are not of this form.
        """
        try:
            hardest = {int(query): tuple(map(int, rows)) for query, rows in values["hardest"].items()}
            if any(query < 0 or not rows or min(rows) < 0 for query, rows in hardest.items()):
                raise ValueError("hardest negatives are row numbers from 0 up")
            return cls(values["strategy"], int(values["seed"]), int(values["round"]), hardest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MiningRejected(
                "bad_state", f"the mining state cannot be read ({error!r}): resume from another checkpoint"
            ) from error

    def generator(self, step: int) -> np.random.Generator:
        """Return the generator of one step of the current round."""
        return np.random.default_rng((self.seed, self.round, step))


@dataclass(frozen=True)
class Round:
    """The photos of one round of mining.

    Attributes:
        queries: (Q,) int64, query rows, each once.
        database: (M,) int64, sorted database rows whose descriptors `mine` needs.
        sampled: (S,) int64, sorted database rows that negatives are mined among, a part of `database`; empty
            for `random`.
    """

    queries: Indices
    database: Indices
    sampled: Indices


def draw_round(
    neighbours: Neighbours,
    state: MiningState,
    *,
    queries: int = 1_000,
    sampled: int = 1_000,
    weights: NDArray[np.floating] | None = None,
) -> Round:
    """Draw the queries and the database photos of the next round.

    Args:
        neighbours: Positives and exclusions of each query.
        state: The state of mining.
        queries: Queries of a round; fewer where fewer can be trained on.
        sampled: Database photos that negatives are mined among; all where there are fewer.
        weights: (number of queries,) 0 or more, relative probability of each query; `msls_weighted` only.

    Raises:
        ValueError: a number is not positive, or weights do not fit the strategy or the queries.
        MiningRejected: the state belongs to other data.
    """
    if queries < 1 or sampled < 1:
        raise ValueError(f"queries {queries} and sampled {sampled} must be at least 1")
    if any(
        query >= neighbours.queries or max(rows) >= neighbours.database
        for query, rows in state.hardest.items()
    ):
        raise MiningRejected(
            "bad_state", "the mining state belongs to other data: resume with the data set it was made with"
        )
    generator = state.generator(0)
    chances = _chances(neighbours, state.strategy, weights)
    count = min(queries, len(neighbours.usable) if chances is None else int(np.count_nonzero(chances)))
    chosen = generator.choice(neighbours.usable, count, replace=False, p=chances)
    if state.strategy == "full":
        everything = np.arange(neighbours.database)
        return Round(chosen, everything, everything)
    positives = np.concatenate([neighbours.positives(query) for query in chosen])
    candidates = np.empty(0, np.int64)
    if state.strategy != "random":
        candidates = np.sort(_sample(generator, neighbours.database, sampled))
    return Round(chosen, np.union1d(positives, candidates), candidates)


def mine(
    drawn: Round,
    neighbours: Neighbours,
    state: MiningState,
    query_descriptors: NDArray[np.floating],
    database_descriptors: NDArray[np.floating],
    *,
    negatives: int = 2,
    sampled: int = 1_000,
) -> tuple[Indices, MiningState]:
    """Choose the best positive and the negatives of each query of a round.

    The best positive is the nearest in descriptor space among those near in metres. Negatives are the nearest
    in descriptor space among the sampled photos that are far in metres; where too few of the sampled are, the
    rest is drawn at random from all that are.

    Args:
        drawn: The round, as `draw_round` returned it for the same state.
        neighbours: Positives and exclusions of each query.
        state: The state of mining.
        query_descriptors: (Q, D) float, unit L2 norm, finite, in the order of `drawn.queries`.
        database_descriptors: (M, D) float, unit L2 norm, finite, in the order of `drawn.database`.
        negatives: N, up to `neighbours.negatives`.
        sampled: For `full`: photos drawn for each query, in addition to its hardest so far.

    Returns:
        triplets: (Q, 1 + 1 + N) int64, the query's row, then database rows: best positive and negatives, the
            hardest first.
        state: The state afterwards.

    Raises:
        ValueError: shapes do not fit, a descriptor is not finite, or N is larger than was checked for.
    """
    _require_descriptors(drawn, query_descriptors, database_descriptors)
    if not 1 <= negatives <= neighbours.negatives or sampled < 1:
        raise ValueError(
            f"negatives {negatives} must be 1 to {neighbours.negatives}, as passed to find_neighbours, "
            f"and sampled {sampled} at least 1"
        )
    triplets = np.empty((len(drawn.queries), 2 + negatives), np.int64)
    hardest = dict(state.hardest)
    candidates = np.searchsorted(drawn.database, drawn.sampled)
    database = database_descriptors.astype(np.float32, copy=False)
    step = max(1, _BLOCK // max(1, len(drawn.database)))
    for start in range(0, len(triplets), step):
        similarity = query_descriptors[start : start + step].astype(np.float32, copy=False) @ database.T
        for row, similarities in enumerate(similarity, start=start):
            query = int(drawn.queries[row])
            generator = state.generator(1 + query)
            near = neighbours.positives(query)
            best = near[np.argmax(similarities[np.searchsorted(drawn.database, near)])]
            among = candidates
            if state.strategy == "full":
                former = np.array(hardest.get(query, ()), np.int64)
                among = np.union1d(_sample(generator, neighbours.database, sampled), former)
            far = among[~np.isin(drawn.database[among], neighbours.excluded(query))]
            order = np.argsort(-similarities[far], kind="stable")[:negatives]
            chosen = _fill(drawn.database[far[order]], neighbours, query, negatives, generator)
            triplets[row] = query, best, *chosen
            if state.strategy == "full":
                hardest[query] = tuple(chosen.tolist())
    return triplets, dataclasses.replace(state, round=state.round + 1, hardest=hardest)


def msls_weights(night: NDArray[np.bool_], sideways: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weight queries so that night and sideways views, rare in the data, are drawn more often.

    Every query weighs 1, and each of a rare group as much again as there are queries to one of its members
    (Warburg et al., CVPR 2020, section 5).

    Args:
        night: (Q,) bool, photos taken at night.
        sideways: (Q,) bool, photos not looking along the road.

    Returns:
        (Q,) float64, at least 1.

    Raises:
        ValueError: shapes differ.
    """
    if night.ndim != 1 or night.shape != sideways.shape:
        raise ValueError(f"night {night.shape} and sideways {sideways.shape} must both be (Q,)")
    weights = np.ones(len(night))
    for group in (night, sideways):
        weights[group] += len(group) / max(1, int(np.count_nonzero(group)))
    return weights


def _chances(
    neighbours: Neighbours, strategy: Strategy, weights: NDArray[np.floating] | None
) -> NDArray[np.float64] | None:
    if (weights is not None) != (strategy == "msls_weighted"):
        raise ValueError(f"strategy {strategy} and weights do not go together: only msls_weighted uses them")
    if weights is None:
        return None
    if weights.shape != (neighbours.queries,) or not bool(
        np.isfinite(weights).all() and (weights >= 0).all()
    ):
        raise ValueError(
            f"weights of shape {weights.shape} must be ({neighbours.queries},), finite and 0 or more"
        )
    chosen = weights[neighbours.usable].astype(np.float64)
    if not chosen.sum() > 0:
        raise ValueError("every query that can be trained on has weight 0: give some a larger one")
    chances: NDArray[np.float64] = chosen / chosen.sum()
    return chances


def _sample(generator: np.random.Generator, total: int, count: int) -> Indices:
    """Draw `count` of the numbers below `total`, or all."""
    if count >= total:
        return np.arange(total)
    return generator.choice(total, count, replace=False, shuffle=False)


def _fill(
    chosen: Indices, neighbours: Neighbours, query: int, count: int, generator: np.random.Generator
) -> Indices:
    """Add random database rows beyond the distance, each once, until there are enough."""
    if len(chosen) == count:
        return chosen
    left_out = np.union1d(neighbours.excluded(query), chosen)
    ranks = _sample(generator, neighbours.database - len(left_out), count - len(chosen))
    # The r-th row not left out: r plus the left-out rows at or below it.
    gaps = left_out - np.arange(len(left_out))
    more = ranks + np.searchsorted(gaps, ranks, side="right")
    return np.concatenate([chosen, generator.permutation(more)[: count - len(chosen)]])


def _require_descriptors(drawn: Round, queries: NDArray[np.floating], database: NDArray[np.floating]) -> None:
    fits = queries.ndim == database.ndim == 2 and queries.shape[1] == database.shape[1]
    if not fits or (len(queries), len(database)) != (len(drawn.queries), len(drawn.database)):
        raise ValueError(
            f"descriptors {queries.shape} and {database.shape} are not ({len(drawn.queries)}, D) and "
            f"({len(drawn.database)}, D)"
        )
    if not (np.isfinite(queries).all() and np.isfinite(database).all()):
        raise ValueError("descriptors are not finite, training has diverged: lower the learning rate")

"""The recursions against brute force: every path through a small graph, weighed and summed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from serving.tracks.markov import Step, smoothed

STATES, FRAMES = 3, 5


def made_step(generator: np.random.Generator) -> Step:
    dense = generator.random((STATES, STATES)) * (generator.random((STATES, STATES)) < 0.7)
    leaks = generator.uniform(0.1, 0.5, STATES)
    dense *= ((1 - leaks) / np.maximum(dense.sum(axis=1), 1e-9))[:, None]
    leaks = 1 - dense.sum(axis=1)
    sources, targets = np.nonzero(dense)
    found = np.flatnonzero(generator.random(STATES) < 0.7)
    return Step(
        sources,
        targets,
        dense[sources, targets],
        np.append(leaks, 1.0),
        found,
        np.full(len(found), 0.2),
        generator.random(STATES + 1),
    )


def as_matrix(step: Step) -> np.ndarray:
    """Return (S + 1, S + 1) transition probabilities, row by row what follows from a state."""
    matrix = np.zeros((STATES + 1, STATES + 1))
    for source, target, weight in zip(step.sources, step.targets, step.weights, strict=True):
        matrix[source, target] += weight
    for state, leak in enumerate(step.leaks):
        stays = 1.0
        for target, weight in zip(step.found, step.found_weights, strict=True):
            matrix[state, target] += leak * weight
            stays -= weight
        matrix[state, STATES] += leak * stays
    return matrix


def by_all_paths(start: np.ndarray, steps: list[Step], frame: int) -> np.ndarray:
    """Return the distribution of a frame: the sum over all paths that go through each state then."""
    shares = np.zeros(STATES + 1)
    matrices = [as_matrix(step) for step in steps]
    for path in itertools.product(range(STATES + 1), repeat=len(steps) + 1):
        weight = start[path[0]]
        for number, step in enumerate(steps):
            weight *= matrices[number][path[number], path[number + 1]]
            weight *= step.likelihoods[path[number + 1]]
        shares[path[frame + 1]] += weight
    return shares / shares.sum()


@pytest.mark.parametrize("lag", [0, 1, 2, FRAMES])
def test_beliefs_are_those_of_all_paths(lag: int) -> None:
    generator = np.random.default_rng(lag)
    steps = [made_step(generator) for _ in range(FRAMES)]
    np.testing.assert_allclose(as_matrix(steps[0]).sum(axis=1), 1.0)
    start = generator.dirichlet(np.ones(STATES + 1))
    beliefs = list(smoothed(lambda number, before: steps[number], FRAMES, start=start, lag=lag))
    assert len(beliefs) == FRAMES
    for frame, belief in enumerate(beliefs):
        expected = by_all_paths(start, steps[: frame + lag + 1], frame)
        np.testing.assert_allclose([*belief.shares, belief.lost], expected, atol=1e-12)


def test_the_step_is_asked_for_with_the_distribution_before_it() -> None:
    generator = np.random.default_rng(9)
    steps = [made_step(generator) for _ in range(2)]
    seen: list[np.ndarray] = []

    def step_of(number: int, before: np.ndarray) -> Step:
        seen.append(before)
        return steps[number]

    start = np.array([0.0, 0.0, 0.0, 1.0])
    list(smoothed(step_of, 2, start=start, lag=2))
    np.testing.assert_array_equal(seen[0], start)
    first = start @ as_matrix(steps[0]) * steps[0].likelihoods
    np.testing.assert_allclose(seen[1], first / first.sum())


def test_a_frame_that_no_state_explains_is_lost_and_not_an_error() -> None:
    step = made_step(np.random.default_rng(3))
    impossible = Step(**{**vars(step), "likelihoods": np.zeros(STATES + 1)})
    (belief,) = smoothed(lambda number, before: impossible, 1, start=np.ones(STATES + 1) / 4, lag=3)
    assert belief.lost == 1.0


def test_many_frames_neither_overflow_nor_vanish() -> None:
    step = made_step(np.random.default_rng(4))
    tiny = Step(**{**vars(step), "likelihoods": step.likelihoods * 1e-30})
    start = np.ones(STATES + 1) / (STATES + 1)
    beliefs = list(smoothed(lambda number, before: tiny, 400, start=start, lag=200))
    assert all(np.isfinite(belief.shares).all() for belief in beliefs)
    assert all(abs(belief.shares.sum() + belief.lost - 1) < 1e-9 for belief in beliefs)

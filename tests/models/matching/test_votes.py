"""Votes on displacement: against the definition, and the properties that the score promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.matching import votes
from models.matching.binary import matched_hamming_pairs, mutual_hamming_count, mutual_hamming_neighbours
from models.matching.mutual import matched_pairs, mutual_neighbours, mutual_nn_count
from models.matching.votes import agreeing_pairs, vote_scores
from tests.models.matching.test_mutual import unit
from tests.support.plain_votes import plain_votes

Matches = tuple[NDArray[np.int64], NDArray[np.float32], tuple[int, int], tuple[int, int]]


def draw_matches(seed: int) -> Matches:
    """Matches of a few candidates: scattered, in steps of similarity that make ties."""
    rng = np.random.default_rng(seed)
    grid, other = ((int(a), int(b)) for a, b in rng.integers(1, 20, (2, 2)))
    cells, others, count = grid[0] * grid[1], other[0] * other[1], int(rng.integers(1, 26))
    partner = np.full((count, cells), -1)
    for row in partner:
        size = int(rng.integers(0, min(cells, others) + 1))
        row[rng.permutation(cells)[:size]] = rng.permutation(others)[:size]
    similarity = rng.integers(-8, 17, (count, cells)).astype(np.float32) / 16
    return partner, similarity, grid, other


def score(partner: Any, similarity: Any, *grids: Any) -> list[float]:
    scores = vote_scores(torch.as_tensor(partner), torch.as_tensor(similarity), *grids)
    assert scores.dtype == torch.float64
    return [float(value) for value in scores]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_scores_equal_the_definition(seed: int) -> None:
    matches = draw_matches(seed)
    assert score(*matches) == plain_votes(*matches)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_score_is_from_zero_to_the_count(seed: int) -> None:
    partner, *rest = draw_matches(seed)
    scores = score(partner, *rest)
    assert all(0 <= value <= count for value, count in zip(scores, (partner >= 0).sum(axis=1), strict=True))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_score_does_not_depend_on_the_order_of_cells_and_candidates(seed: int) -> None:
    partner, similarity, grid, other = draw_matches(seed)
    rng = np.random.default_rng(seed)
    expected = score(partner, similarity, grid, other)
    # Among the first 12, every candidate says as much about the cells.
    order = np.r_[rng.permutation(min(12, len(partner))), 12 : len(partner)].astype(int)
    assert score(partner[order], similarity[order], grid, other) == [expected[i] for i in order]
    # Both photos mirrored: the cells come in another order, the displacements are as far apart as before.
    cells = np.arange(grid[0] * grid[1]).reshape(grid)[::-1, ::-1].ravel()
    mirrored = partner[:, cells]
    mirrored = np.where(mirrored >= 0, other[0] * other[1] - 1 - mirrored, -1)
    if grid == other == (14, 14):
        assert score(mirrored, similarity[:, cells], grid, other) == expected


def test_mirrored_photos_have_the_same_score() -> None:
    rng = np.random.default_rng(3)
    partner = np.stack([np.where(rng.random(196) < 0.4, rng.permutation(196), -1) for _ in range(5)])
    similarity = rng.random((5, 196)).astype(np.float32)
    mirrored = np.where(partner >= 0, 195 - partner, -1)[:, ::-1].copy()
    assert score(mirrored, similarity[:, ::-1].copy(), (14, 14)) == score(partner, similarity, (14, 14))


@pytest.mark.parametrize("grid", [(14, 14), (61, 61), (7, 20), (1, 1)])
@pytest.mark.parametrize("moved", [0, 1])
def test_score_is_the_count_where_all_agree_with_whole_weights(grid: tuple[int, int], moved: int) -> None:
    cells = np.arange(grid[0] * grid[1]).reshape(grid)
    partner = np.full((4, *grid), -1)
    partner[0, :, : max(1, grid[1] - moved)] = cells[:, min(moved, grid[1] - 1) :]
    similarity = np.where(partner >= 0, np.float32(1), np.float32(0))  # others reach less: means are 0.3
    scores = score(partner.reshape(4, -1), similarity.reshape(4, -1), grid)
    assert scores == [(partner[0] >= 0).sum(), 0, 0, 0]


def test_scattered_matches_count_three_fifths_and_a_change_of_scale_counts_in_full() -> None:
    y, x = np.divmod(np.arange(196), 14)
    scaled = np.full(196, -1)
    inner = (abs(y - 6.5) < 5.5) & (abs(x - 6.5) < 5.5)
    target_y, target_x = (np.rint((at - 6.5) * 1.25 + 6.5).astype(int) for at in (y, x))
    first = np.unique(target_y[inner] * 14 + target_x[inner], return_index=True)[1]
    rows = np.flatnonzero(inner)[first]
    scaled[rows] = target_y[rows] * 14 + target_x[rows]
    corners = np.full(196, -1)
    corners[[0, 13, 182, 195]] = [195, 182, 13, 0]  # four displacements, far apart
    partner = np.stack([scaled, corners, np.full(196, -1)])
    similarity = np.where(partner >= 0, np.float32(1), np.float32(-1))
    assert score(partner, similarity, (14, 14)) == [len(rows), pytest.approx((3 * 4 + 1 + 1) / 5), 0]


def test_a_cell_that_every_candidate_matches_equally_well_has_no_vote() -> None:
    partner = np.tile(np.arange(4), (30, 1))
    similarity = np.full((30, 4), 0.9, np.float32)
    similarity[:, 3] = 0.2
    similarity[7, 3] = 0.8
    scores = score(partner, similarity, (2, 2))
    assert int(np.argmax(scores)) == 7
    assert scores[7] - scores[6] == pytest.approx(1, abs=0.01)
    assert scores[6] == pytest.approx(3 / 4, abs=0.01)  # three cells, similar everywhere: the absolute part


def test_a_candidate_has_the_same_score_among_the_first_12_and_behind_them() -> None:
    for place in (0, 11, 12, 29):
        partner = np.full((30, 4), -1)
        partner[place] = np.arange(4)
        similarity = np.full((30, 4), 0.2, np.float32)
        similarity[place] = 0.38  # below 0.5, so that only the relative part counts
        # Up to the twelfth place the mean is 0.215; behind it 0.2, and 11/12 of the difference count.
        assert score(partner, similarity, (2, 2))[place] == pytest.approx(4 * 0.75 * 0.165 / 0.3)


def test_no_match_one_match_and_no_candidate() -> None:
    assert score(np.full((1, 196), -1), np.ones((1, 196), np.float32), (14, 14)) == [0]
    one = np.full((2, 196), -1)
    one[0, 5] = 9
    similarity = np.array([[1], [0]], np.float32).repeat(196, axis=1)
    assert score(one, similarity, (14, 14)) == [1, 0]
    assert score(one[:1], similarity[:1], (14, 14)) == [0.25]  # alone it is as similar as on the mean
    assert score(np.empty((0, 196), int), np.empty((0, 196), np.float32), (14, 14)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_similarities_that_are_not_finite_are_refused(value: float) -> None:
    similarity = np.ones((1, 4), np.float32)
    similarity[0, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        score(np.full((1, 4), -1), similarity, (2, 2))


@pytest.mark.parametrize(
    ("partner", "similarity", "problem"),
    [
        (np.zeros((1, 5), int), np.ones((1, 5), np.float32), "do not fit"),
        (np.zeros((2, 4), int), np.ones((1, 4), np.float32), "do not fit"),
        (np.zeros(4, int), np.ones(4, np.float32), "do not fit"),
        (np.full((1, 4), 4), np.ones((1, 4), np.float32), "not cells"),
        (np.full((1, 4), 2**40), np.ones((1, 4), np.float32), "not cells"),
        (np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32), "not cells"),
    ],
)
def test_matches_that_do_not_fit_are_refused(partner: Any, similarity: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        score(partner, similarity, (2, 2))


def test_huge_similarities_and_negative_partners_are_as_limits() -> None:
    partner = np.array([[-5, 0, 1, -1]])
    huge = np.array([[1e30, -1e30, 1e30, 3e38]], np.float32)
    assert score(partner, huge, (2, 2)) == score(np.array([[-1, 0, 1, -1]]), huge.clip(-8, 8), (2, 2))


def test_scores_of_many_cells_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (190, 190)  # sums beyond the whole numbers of float32
    partner = np.arange(190 * 190)[None].repeat(2, axis=0)
    similarity = np.array([[1], [0]], np.float32).repeat(190 * 190, axis=1)
    assert score(partner, similarity, size) == [190 * 190, 0]
    with pytest.raises(ValueError, match="too many"):
        score(np.zeros((0, 2000 * 2000), int), np.zeros((0, 2000 * 2000), np.float32), (2000, 2000))


def test_agreeing_pairs_lie_in_the_square_with_the_most_votes() -> None:
    cells = np.arange(196).reshape(14, 14)
    shifted = np.stack([cells[:, :-3].ravel(), cells[:, 3:].ravel()], axis=1)
    wrong = np.array([[0, 195], [195, 0], [13, 182]])
    pairs = np.concatenate([wrong, shifted])
    similarity = np.full(len(pairs), 0.9, np.float32)
    assert agreeing_pairs(pairs, similarity, (14, 14)).tolist() == [False] * 3 + [True] * len(shifted)
    assert not agreeing_pairs(pairs, np.zeros(len(pairs), np.float32), (14, 14)).any()
    assert agreeing_pairs(pairs[:0], similarity[:0], (14, 14)).tolist() == []


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_neighbours_are_those_that_are_counted_and_drawn(precision: Any) -> None:
    rng = np.random.default_rng(5)
    query, candidates = unit(rng, 14, 14, 20), unit(rng, 6, 14, 14, 20).astype(np.float16)
    partner, similarity = mutual_neighbours(query, candidates, precision=precision)
    for floor in (None, 0.5):
        mutual = partner >= 0 if floor is None else (partner >= 0) & (similarity >= floor)
        assert torch.equal(mutual.sum(dim=1), mutual_nn_count(query, candidates, min_similarity=floor))
    pairs, _ = matched_pairs(query, candidates[2])
    cells = np.flatnonzero(partner[2].numpy() >= 0)
    assert pairs.tolist() == np.stack([cells, partner[2].numpy()[cells]], axis=1).tolist()


def test_hamming_neighbours_are_those_that_are_counted_and_drawn() -> None:
    rng = np.random.default_rng(6)
    query, candidates = (
        torch.from_numpy(rng.integers(0, 256, (*shape, 5), dtype=np.uint8)) for shape in ((9,), (7, 9))
    )
    for group in (1, 1 << 22):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("models.matching.binary._UNPACKED_VALUES", group)
            partner, similarity = mutual_hamming_neighbours(query, candidates, bits=37)
        assert torch.equal((partner >= 0).sum(dim=1), mutual_hamming_count(query, candidates, bits=37))
        pairs, estimated = matched_hamming_pairs(query, candidates[3], bits=37)
        np.testing.assert_allclose(similarity[3][partner[3] >= 0].numpy(), estimated, atol=1e-6)
        assert partner[3][pairs[:, 0]].tolist() == pairs[:, 1].tolist()
    assert mutual_hamming_neighbours(query, candidates[:0], bits=37)[0].shape == (0, 9)


def test_constants_are_those_of_the_docstring() -> None:
    assert votes.__doc__ is not None
    assert (votes.BASELINE_CANDIDATES, votes.WIDTHS) == (12, (5, 9))
    assert (votes.STEPS, votes.FULL) == (2000, 1600)
    steps = (votes.RELATIVE, votes.ABSOLUTE, votes.ABSOLUTE_FROM)
    assert [each / votes.STEPS for each in steps] == [0.3, 0.2, 0.5]

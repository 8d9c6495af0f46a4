"""Descriptors in blocks: what is kept, and what many queries at once find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from storage.search.descriptor_blocks import BLOCK_ROWS, DescriptorBlocks

DIM = 24


def drawn(count: int, seed: int, dtype: Any) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("unit", [False, True])
def test_rows_come_back_as_they_were_given_from_every_block(dtype: Any, unit: bool) -> None:
    rows = drawn(BLOCK_ROWS + 3000, 1, dtype)
    first = DescriptorBlocks(DIM, dtype, unit=unit).grown(rows[:1000])
    blocks = first.grown(rows[1000:])
    ids = np.array([0, BLOCK_ROWS + 2999, 999, 1000, BLOCK_ROWS, BLOCK_ROWS - 1, 0])
    np.testing.assert_allclose(blocks.reconstruct(ids), rows[ids].astype(np.float32), atol=1e-3 * unit)
    np.testing.assert_array_equal(first.reconstruct(ids[[0, 2]]), blocks.reconstruct(ids[[0, 2]]))
    assert blocks.reconstruct(np.empty(0, np.int64)).shape == (0, DIM)
    np.testing.assert_array_equal(blocks.reconstruct(np.sort(ids)), blocks.reconstruct(ids)[np.argsort(ids)])
    for wrong in (-1, len(rows)):
        with pytest.raises(IndexError):
            blocks.reconstruct(np.array([5, wrong, 7]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("start", [0, 9000])
def test_many_queries_find_what_each_of_them_finds(masked: bool, start: int) -> None:
    rows = drawn(20_000, 2, np.float16)
    rows[15_000:15_040] = rows[14_000]  # ties
    blocks = DescriptorBlocks(DIM, np.float16, unit=False).grown(rows)
    queries = np.concatenate([drawn(39, 3, np.float32), rows[14_000:14_001].astype(np.float32)])
    allowed = np.random.default_rng(4).random(len(rows)) < 0.3 if masked else None
    scores, ids = blocks.nearest(queries, 30, allowed, start=start)
    for query, score, numbers in zip(queries, scores, ids, strict=True):
        alone, found = blocks.nearest(query[None], 30, allowed, start=start)
        width = found.shape[1]
        np.testing.assert_allclose(score[:width], alone[0], atol=1e-5)
        kept = numbers[:width] if width < len(numbers) else numbers
        strangers = np.setxor1d(kept, found[0])
        assert len(strangers) == 0 or np.isin(strangers, [14_000, *range(15_000, 15_040)]).all()
        assert allowed is None or allowed[numbers[numbers >= 0]].all()
        assert (numbers[numbers >= 0] >= start).all()

"""Inverted lists of codes: each row is in one list, and its code can be read back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.search.code_index import CodeIndex
from storage.search.code_lists import CodeLists, train_centres

CODES = np.random.default_rng(0).integers(0, 256, (9000, 8), dtype=np.uint8)


def test_every_row_is_found_when_all_lists_are_probed() -> None:
    lists = CodeLists(train_centres(CODES[::3], 32, max_per_list=40), CODES)
    lists.probes = 32
    distances, rows = lists.search(CODES[:50], 9000)
    assert (np.sort(rows, axis=1) == np.arange(9000)).all()
    expected = np.bitwise_count(CODES[rows[3]] ^ CODES[3]).sum(axis=1)
    assert distances[3].tolist() == expected.tolist()


def test_codes_of_rows_are_read_back_in_any_order() -> None:
    lists = CodeLists(train_centres(CODES[::3], 32, max_per_list=40), CODES)
    for rows in (np.arange(9000), np.array([8999, 3, 3, 0, 4000]), np.empty(0, np.int64)):
        assert np.array_equal(lists.codes_of(rows), CODES[rows])


def test_the_measured_recall_is_what_its_own_rows_get() -> None:
    rng = np.random.default_rng(1)
    places = rng.integers(0, 256, (300, 16), dtype=np.uint8)
    codes = places[rng.integers(300, size=9000)] ^ np.packbits(rng.random((9000, 128)) < 0.1, axis=1)
    index = CodeIndex([codes], 9000, bits=128, inverted=True)
    asked = codes[::45]
    best = CodeIndex([codes], 9000, bits=128, inverted=False).search(asked, 101)
    found = index.search(asked, 101)

    def distances(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bitwise_count(codes[rows] ^ asked[:, None]).sum(axis=2, dtype=np.int64)

    recall = (distances(found) <= distances(best)[:, -1:]).mean()
    assert 0 < index.probes < index.lists
    assert 0.99 <= index.recall <= recall


def test_an_index_grows_and_is_joined_and_put_into_lists_with_the_same_codes() -> None:
    index = CodeIndex([CODES[:8500]], 8500, bits=64, inverted=True)
    grown = index.grown(CODES[8500:8800]).grown(CODES[8800:])
    joined = index.joined(grown)
    extended = grown.extended(np.ones(9000, bool))
    for first in (0, 1, 8499, 8500, 8700, 8999):
        for one in (grown, joined, extended):
            assert np.array_equal(one._from(first), CODES[first:])
    assert (extended.lists, extended.count) == (index.lists, 9000)
    for one in (grown, joined):
        assert one.search(CODES[[8600, 8990]], 1)[:, 0].tolist() == [8600, 8990]

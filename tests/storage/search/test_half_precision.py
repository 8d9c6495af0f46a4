from __future__ import annotations

import numpy as np
import pytest

from storage.search.half_precision import widened

FINITE = np.arange(1 << 16, dtype=np.uint16)[(np.arange(1 << 16) & 0x7C00) != 0x7C00].view(np.float16)


def test_every_finite_half_becomes_the_same_single() -> None:
    found = widened(FINITE.reshape(-1, 4))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    expected = FINITE.astype(np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))  # with the sign of zero


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 50_001), (300, 1_024)])
def test_rows_of_any_shape_and_arrangement(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    before = rows.copy()
    np.testing.assert_array_equal(widened(rows), rows.astype(np.float32))
    np.testing.assert_array_equal(widened(rows[::-1, ::2]), rows[::-1, ::2].astype(np.float32))
    np.testing.assert_array_equal(rows, before)
    single = rows.astype(np.float32)
    assert widened(single) is single
    np.testing.assert_array_equal(widened(single[:, ::2]), single[:, ::2])

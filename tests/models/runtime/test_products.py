"""Products of arrays by torch's threads."""

from __future__ import annotations

import numpy as np
import pytest

from models.runtime.products import multiplied


@pytest.mark.parametrize("turned", [False, True])
def test_it_is_the_product_of_the_two(turned: bool) -> None:
    draw = np.random.default_rng(0)
    left = draw.standard_normal((7, 5) if turned else (5, 7)).astype(np.float32)
    right = draw.standard_normal((7, 3)).astype(np.float32)
    left = left.T if turned else left
    product = multiplied(left, right)
    assert product.dtype == np.float32
    np.testing.assert_allclose(product, left.astype(np.float64) @ right, rtol=0, atol=1e-5)

"""Where matched cells lie in an image."""

from __future__ import annotations

import dataclasses

import numpy as np

from serving.lines import cell_centres
from tests.support.store_samples import make_card


def test_cell_centres_up_convolved_grid_hits_patch_centres() -> None:
    pre = dataclasses.replace(make_card().preprocessing, width=224, height=224)
    even = dataclasses.replace(make_card(), preprocessing=pre, grid_height=14, grid_width=14)
    card = dataclasses.replace(even, grid_height=61, grid_width=61)
    centres = cell_centres(card).reshape(61, 61, 2)
    # Every fourth cell stands on the centre of one of the 16 patches of 14 px.
    assert np.allclose(centres[0, ::4, 0] * 224, np.arange(16) * 14 + 7)
    assert np.allclose(centres[::4, 0, 1] * 224, np.arange(16) * 14 + 7)
    plain = cell_centres(even)
    assert plain.shape == (196, 2)
    assert np.allclose(plain[0], 0.5 / 14)

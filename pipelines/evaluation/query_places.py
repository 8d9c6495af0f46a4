"""Which queries are of the same place: photos that can share a right answer are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from storage.neighbourhoods import nearby
from storage.position import Position, Positions

__all__ = ["places_of"]


def places_of(positions: Sequence[Position] | Positions, radius_m: float) -> NDArray[np.int64]:
    """Return (Q,) the place of each query; a query without a position is a place of its own.

    A place is a query that belongs to no earlier one, and the later ones within the radius of it that belong
    to no earlier one either.

    Args:
        positions: Q positions.
        radius_m: In metres, inclusive; twice the threshold of right answers, as two queries that far apart
            can still share one.
    """
    if not len(positions):
        return np.empty(0, np.int64)
    where = positions if isinstance(positions, Positions) else Positions.of(positions)
    near = nearby(where, where, radius_m)
    places = np.full(len(positions), -1, np.int64)
    count = 0
    for query in range(len(positions)):
        if places[query] >= 0:
            continue
        members = near.of(query)
        places[members[places[members] < 0]] = count
        places[query] = count
        count += 1
    return places

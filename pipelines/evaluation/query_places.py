"""Which queries are of the same place: photos that can share a right answer are not independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.neighbourhoods import nearby
from storage.position import Position, Positions

__all__ = ["places_of"]


def places_of(positions: list[Position], radius_m: float) -> NDArray[np.int64]:
    """Return (Q,) the place of each query; a query without a position is a place of its own.

    A place is a query that belongs to no earlier one, and the later ones within the radius of it that belong
    to no earlier one either.

    Args:
        positions: Q positions.
        radius_m: In metres, inclusive; twice the threshold of right answers, as two queries that far apart
            can still share one.
    """
    near = nearby(Positions.of(positions), Positions.of(positions), radius_m) if positions else None
    places = np.full(len(positions), -1, np.int64)
    count = 0
    for query in range(len(positions)):
        if places[query] >= 0:
            continue
        assert near is not None
        members = near.of(query)
        places[members[places[members] < 0]] = count
        places[query] = count
        count += 1
    return places

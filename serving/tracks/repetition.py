"""How much of what a frame shows was not shown by the frames before it.

A vehicle at rest sees the same houses again, and takes them for the same wrong street again. Where nobody
says how far it has moved, the answers themselves tell: what speaks for a view counts once, as strongly as it
was ever said lately, so that a stop of any length proves no more than its best frame. A frame that speaks
most for another view than the frames before it was probably taken on the way, however much else it repeats:
views down a corridor show the same for many frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["novelties"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_KEPT = 0.8  # of what a view was said for, from one frame to the next
# At least so much is new where another view comes first than in so many frames before. More of it lets a stop
# that alternates between views speak too loud, less of it loses a corridor.
_ON_THE_WAY, _LATELY = 0.6, 10
# Share of what a frame says that is new at rest, and 4 m and more after the frame before; read off drawn
# drives, whose camera shakes at rest too.
_REST, _MOVED = 0.2, 0.35


def novelties(frames: Iterable[tuple[Rows, Floats]], views: int) -> Iterator[float]:
    """Yield for each frame the share of its evidence that is new, from 0 at rest to 1 on the way.

    Args:
        frames: Of each the rows of views that it shows, each once, and the logarithms by which it speaks for
            them over all others, float64.
        views: How many there are.
    """
    said = np.zeros(views)
    best: deque[int] = deque(maxlen=_LATELY)
    for rows, logs in frames:
        spoken = np.maximum(logs, 0.0)
        total = float(spoken.sum())
        new = float(np.maximum(spoken - said[rows], 0.0).sum()) / total if total > 0 else 1.0
        said *= _KEPT
        said[rows] = np.maximum(said[rows], spoken)
        novelty = min(1.0, max(0.0, new - _REST) / (_MOVED - _REST))
        if len(rows):
            first = int(rows[np.argmax(spoken)])
            novelty = novelty if first in best else max(novelty, _ON_THE_WAY)
            best.append(first)
        yield novelty

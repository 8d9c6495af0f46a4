"""How much of a frame's evidence is new."""

from __future__ import annotations

import numpy as np

from serving.tracks.repetition import novelties


def shown(*pairs: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([view for view, _ in pairs], np.int64), np.array([log for _, log in pairs])


def test_the_first_frame_is_new_and_its_repetitions_are_not() -> None:
    frame = shown((3, 4.0), (7, 1.0))
    first, *others = novelties([frame] * 6, 10)
    assert first == 1.0
    assert others == [0.0] * 5


def test_other_views_are_new_and_a_frame_without_any_takes_nothing_away() -> None:
    frames = [shown((1, 3.0)), shown((2, 3.0)), shown(), shown((4, 3.0))]
    assert list(novelties(frames, 6)) == [1.0] * 4


def test_what_was_said_long_ago_is_new_again() -> None:
    here, elsewhere = shown((0, 5.0)), shown((1, 5.0))
    told = list(novelties([here, *[elsewhere] * 20, here], 2))
    assert told[-1] == 1.0


def test_novelty_grows_with_what_is_added() -> None:
    before = shown((0, 4.0), (1, 4.0))
    little, much = (list(novelties([before, shown((0, 3.0), (2, log))], 4))[1] for log in (0.8, 1.2))
    assert 0.0 < little < much < 1.0


def test_what_speaks_against_a_view_says_nothing() -> None:
    assert list(novelties([shown((0, -2.0)), shown((0, -2.0), (1, 1.0))], 3)) == [1.0, 1.0]


def test_a_view_that_comes_first_for_the_first_time_was_reached_on_the_way() -> None:
    """Down a corridor each frame repeats most of the one before it, and its best view is the next one."""
    corridor = [
        shown(*((view, 5.0 - abs(view - at)) for view in range(at - 4, at + 5))) for at in range(4, 30)
    ]
    assert min(novelties(corridor, 40)) >= 0.5
    there_and_back = list(novelties([corridor[0], corridor[1]] * 6, 40))
    assert max(there_and_back[4:]) < 0.2

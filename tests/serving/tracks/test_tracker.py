"""Simulated drives through a made city: what the track makes of noisy answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from serving.answer import Match, PlaceRecord
from serving.tracks.city_map import CityMap
from serving.tracks.motion import Motion, at_rate, at_speed
from serving.tracks.tracker import track
from serving.tracks.whereabouts import Located
from storage.position import Position

EAST, NORTH, ZONE = 600_000.0, 5_300_000.0, "33U"
STREETS, PLACES, SPACING_M = 12, 30, 10.0


def place(number: int) -> tuple[float, float]:
    """Return metres of a place: parallel streets 80 m apart, all joined at their ends."""
    street, along = divmod(number, PLACES)
    return EAST + SPACING_M * along, NORTH + 80.0 * street


@pytest.fixture(scope="module")
def city() -> CityMap:
    points = [place(number) for number in range(STREETS * PLACES)]
    return CityMap(
        pa.table(
            {
                "image_id": [f"p{number}" for number in range(len(points))],
                "lat": pa.nulls(len(points), pa.float64()),
                "lon": pa.nulls(len(points), pa.float64()),
                "utm_e": [east for east, _ in points],
                "utm_n": [north for _, north in points],
                "utm_zone": [ZONE] * len(points),
                "heading_deg": [90.0] * len(points),
            }
        )
    )


def answer(generator: np.random.Generator, truth: int | None, *, right: bool) -> list[Match]:
    """Return twenty ranked candidates: noise, and the place of the truth above them where it is seen."""
    numbers = generator.permutation(STREETS * PLACES)[:20].tolist()
    scores = np.sort(generator.gamma(20, 0.5, 20))[::-1].tolist()
    if truth is not None:
        numbers = [number for number in numbers if number != truth][:19]
        at = 0 if right else 5
        numbers.insert(at, truth)
        scores[at] *= 1.6 if right else 1.0
        scores.sort(reverse=True)
    return [
        Match(
            rank,
            PlaceRecord(
                f"p{number}", "", Position(utm_e=place(number)[0], utm_n=place(number)[1], utm_zone=ZONE)
            ),
            0.5,
            int(score),
            score,
            "votes",
        )
        for rank, (number, score) in enumerate(zip(numbers, scores, strict=True), start=1)
    ]


def drive(seed: int, share_right: float, truths: list[int | None]) -> list[list[Match]]:
    generator = np.random.default_rng(seed)
    return [answer(generator, truth, right=generator.random() < share_right) for truth in truths]


def errors_m(located: list[Located], truths: list[int | None]) -> np.ndarray:
    return np.array(
        [
            np.inf
            if each.position is None or not each.known
            else np.hypot(each.position.utm_e - place(truth)[0], each.position.utm_n - place(truth)[1])
            for each, truth in zip(located, truths, strict=True)
            if truth is not None
        ]
    )


def first_answers_m(frames: list[list[Match]], truths: list[int | None]) -> np.ndarray:
    return np.array(
        [
            np.hypot(
                frame[0].record.position.utm_e - place(truth)[0],
                frame[0].record.position.utm_n - place(truth)[1],
            )
            for frame, truth in zip(frames, truths, strict=True)
            if truth is not None
        ]
    )


ALONG = [3 * PLACES + along for along in range(2, 28)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("known", ["nothing", "speed", "odometry"])
def test_a_drive_finds_what_single_frames_miss(city: CityMap, seed: int, known: str) -> None:
    frames = drive(seed, 0.6, list(ALONG))
    motions = {
        "nothing": at_rate(len(frames)),
        "speed": at_speed(len(frames), 10.0),
        "odometry": [Motion(distance_m=10.0, turn_deg=0.0)] * len(frames),
    }[known]
    located = list(track(frames, city, motions))
    single = (first_answers_m(frames, list(ALONG)) <= 25).mean()
    tracked = (errors_m(located, list(ALONG)) <= 25).mean()
    assert single < 0.8
    assert tracked >= max(0.85, single + 0.1)
    assert all(each.radius_m is not None and each.radius_m < 60 for each in located if each.known)


def test_strong_single_answers_are_kept(city: CityMap) -> None:
    frames = drive(1, 1.0, list(ALONG))
    located = list(track(frames, city, at_rate(len(frames))))
    assert (errors_m(located, list(ALONG)) <= 25).all()


def test_a_stretch_outside_is_lost_and_the_way_back_is_found(city: CityMap) -> None:
    truths: list[int | None] = [*ALONG[:12], *[None] * 12, *ALONG[12:]]
    frames = drive(5, 0.9, truths)
    located = list(track(frames, city, at_speed(len(frames), 10.0)))
    assert [each.known for each in located[:10]] == [True] * 10
    assert any(each.lost > 0.5 for each in located[12:17])
    assert all(not each.known for each in located[16:22])
    assert all(each.known for each in located[27:])


def test_a_drive_elsewhere_is_lost(city: CityMap) -> None:
    located = list(track(drive(7, 0.0, [None] * 30), city, at_rate(30)))
    assert sum(each.known for each in located) <= 3


def test_frames_without_an_answer_lie_between_the_others(city: CityMap) -> None:
    frames: list[list[Match] | None] = list(drive(2, 1.0, list(ALONG)))
    frames[10] = frames[11] = None
    located = list(track(frames, city, at_speed(len(frames), 10.0)))
    assert (errors_m(located, list(ALONG))[[10, 11]] <= 15).all()


def test_beliefs_do_not_change_once_they_are_given(city: CityMap) -> None:
    frames = drive(3, 0.6, list(ALONG))
    whole = list(track(frames, city, at_speed(len(frames), 10.0), lag=3))
    begun = list(track(frames[:15], city, at_speed(15, 10.0), lag=3))
    for early, late in zip(begun[:10], whole[:10], strict=True):
        assert early.position is not None
        assert late.position is not None
        assert early.position.distance_m(late.position) < 0.5
        assert early.lost == pytest.approx(late.lost, abs=0.02)


def test_a_vehicle_at_rest_repeats_itself_and_proves_nothing(city: CityMap) -> None:
    once = answer(np.random.default_rng(11), 40, right=True)
    again = [Motion(distance_m=0.0, turn_deg=0.0)] * 12
    (single,) = track([once], city, again[:1])
    standing = list(track([once] * 12, city, again))
    assert standing[-1].probability <= single.probability + 0.15
    moving = list(track([once] * 12, city, [Motion(distance_m=5.0)] * 12))
    assert moving[-1].probability > standing[-1].probability


def test_a_stop_that_nobody_reports_proves_no_more_than_its_best_frame(city: CityMap) -> None:
    """Street 9 looks like street 3 from a vehicle that waits, and like nothing from one that moves."""
    generator = np.random.default_rng(13)
    wrong = answer(generator, 9 * PLACES + 10, right=True)
    (single,) = track([wrong], city, at_rate(1))
    standing = list(track([wrong] * 15, city, at_rate(15)))
    assert standing[-1].probability <= single.probability + 0.15
    reported = list(track([wrong] * 15, city, at_speed(15, 8.0)))
    assert reported[-1].probability > standing[-1].probability + 0.15


def test_the_radius_of_one_certain_place_reaches_past_half_of_the_way_to_the_next(city: CityMap) -> None:
    located = list(track(drive(1, 1.0, list(ALONG)), city, at_speed(len(ALONG), SPACING_M)))
    sure = [each.radius_m for each in located if each.probability > 0.999 and each.radius_m is not None]
    assert sure
    # 90 % of a normal distribution in two dimensions lies within 2.15 standard deviations.
    expected_m = 2.146 * np.hypot(SPACING_M / np.sqrt(12), 1.5)
    assert min(sure) == pytest.approx(expected_m, rel=0.2)


def test_frames_of_a_video_say_as_much_as_one_per_second(city: CityMap) -> None:
    slow = drive(4, 0.7, list(ALONG))
    truths = [truth for truth in ALONG for _ in range(10)]
    fast = [frame for frame in slow for _ in range(10)]
    located = list(track(fast, city, at_rate(len(fast), 10.0), lag=100))
    usual = list(track(slow, city, at_rate(len(slow))))
    assert (errors_m(located, list(truths)) <= 25).mean() >= (errors_m(usual, list(ALONG)) <= 25).mean() - 0.1


def test_nothing_and_unknown_images_make_no_position(city: CityMap) -> None:
    assert list(track([], city, [])) == []
    (empty,) = track([[]], city, at_rate(1))
    assert (empty.position, empty.known, empty.image_id) == (None, False, None)
    foreign = [Match(1, PlaceRecord("gone", "", Position(lat=1.0, lon=2.0)), 0.5, 9, 9.0, "votes")]
    (unknown,) = track([foreign], city, at_rate(1))
    assert unknown.position is None
    assert unknown.lost == pytest.approx(1.0)


def test_the_image_that_says_most_is_named(city: CityMap) -> None:
    frames = drive(1, 1.0, list(ALONG))
    located = list(track(frames, city, at_rate(len(frames))))
    assert located[5].image_id == f"p{ALONG[5]}"
    assert located[5].heading_deg == pytest.approx(90.0)

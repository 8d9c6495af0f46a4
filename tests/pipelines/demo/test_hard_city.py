"""The hard mode of the procedural city: what repeats, what hides, how its queries are taken."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines.demo.camera import Camera, Pose
from pipelines.demo.dataset import draw_city
from pipelines.demo.plan import City, Row, plan_city, plan_row
from pipelines.demo.scene import render_view
from pipelines.demo.shots import HARD_CONDITIONS, CityError, plan_shots
from pipelines.demo.works import works_quads
from pipelines.sources import parse_standard_name

SIZE = (96, 72)


def rows(city: City) -> list[Row]:
    return [
        plan_row(city, axis, line, segment, side)
        for axis, line in city.streets()
        for segment in range(len(city.lines_m[1 - axis]) - 1)
        for side in (1, -1)
    ]


def test_blocks_have_one_size_and_facades_repeat() -> None:
    easy, hard = (plan_city(seed=3, places=200, hard=hard) for hard in (False, True))
    for lines in hard.lines_m:
        assert len(set(np.diff(lines))) == 1
    kinds = {
        city.hard: Counter(house.key for row in rows(city) for house in row.buildings if not house.is_gap)
        for city in (easy, hard)
    }
    assert max(kinds[False].values()) == 1, "in the easy city each house is there once"
    repeated = sum(count for count in kinds[True].values() if count > 3)
    assert 0.5 < repeated / kinds[True].total() < 0.9, "many lots have a house that stands elsewhere too"
    triples = Counter(
        tuple(house.key for house in row.buildings[at : at + 3])
        for row in rows(hard)
        for at in range(len(row.buildings) - 2)
    )
    assert max(triples.values()) > 3, "whole pieces of streets too"
    assert len(triples) > 100, "and not all of them"


def test_each_hard_city_is_another() -> None:
    keys = [
        {h.key for row in rows(plan_city(seed=seed, places=40, hard=True)) for h in row.buildings}
        for seed in (0, 1)
    ]
    assert not keys[0] & keys[1]


def test_queries_are_turned_raised_and_seen_through_other_lenses() -> None:
    _, shots = plan_shots(seed=2, database_images=120, query_images=80, hard=True)
    database = [shot for shot in shots if shot.folder == "database"]
    queries = [shot for shot in shots if shot.folder == "queries"]
    assert {shot.condition for shot in database} == {"day"}
    assert Counter(shot.condition for shot in queries) == dict.fromkeys(HARD_CONDITIONS, 20)
    spots = np.array([(shot.pose.x_m, shot.pose.y_m, shot.pose.heading_deg) for shot in database])
    turns = []
    for shot in queries:
        away = np.hypot(spots[:, 0] - shot.pose.x_m, spots[:, 1] - shot.pose.y_m)
        assert away.min() <= 9.0, "a right answer is there"
        turned = np.abs((spots[away < 9.0][:, 2] - shot.pose.heading_deg + 180) % 360 - 180)
        turns.append(turned.min())
        pose = parse_standard_name(shot.name)
        assert pose["heading_deg"] == shot.pose.heading_deg
        assert math.isclose(pose["utm_e"] % 1, shot.pose.x_m % 1, abs_tol=0.006)
    assert max(turns) > 40
    assert max(turns) <= 60
    lenses = [shot.pose.field_of_view_deg for shot in queries]
    assert min(lenses) < 65
    assert max(lenses) > 90
    heights = [shot.pose.height_m for shot in queries]
    assert min(heights) < 1.7
    assert max(heights) > 3.0


def test_a_wide_lens_sees_more() -> None:
    for degrees in (50.0, 78.0, 105.0):
        camera = Camera(Pose(0, 0, 0, 0.0, 2.0, degrees), size=(320, 240))
        edge = math.tan(math.radians(degrees / 2))
        pixels, _ = camera.project(np.array([[10 * edge, 10.0, 2.0]]))
        assert pixels[0, 0] == pytest.approx(320)


def test_scaffolding_comes_and_goes_and_hides_facades() -> None:
    city = plan_city(seed=0, places=200, hard=True)
    first = [len(works_quads(city, row, 0)) for row in rows(city)]
    later = [len(works_quads(city, row, 7)) for row in rows(city)]
    assert 0 < sum(first) < 0.4 * sum(later)
    assert later != [len(works_quads(city, row, 8)) for row in rows(city)]
    easy = plan_city(seed=0, places=40)
    place = next(iter(easy.places()))
    pose = Pose(place.x_m, place.y_m, 28.0)
    assert np.array_equal(render_view(easy, pose, size=SIZE), render_view(easy, pose, size=SIZE))


def test_rain_and_glare_take_contrast_in_their_own_ways() -> None:
    city = plan_city(seed=0, places=40, hard=True)
    place = next(iter(city.places()))
    pose = Pose(place.x_m, place.y_m, 28.0)
    views = {
        name: render_view(city, pose, condition=name, size=(160, 120)).astype(float)
        for name in ("day", *HARD_CONDITIONS)
    }
    assert views["rain"].mean() < 0.75 * views["day"].mean()
    assert views["glare"].mean() > 1.1 * views["day"].mean()
    edges = {name: np.abs(np.diff(view, axis=1)).mean() for name, view in views.items()}
    for name in ("rain", "glare"):
        assert 0.1 * edges["day"] < edges[name] < 0.9 * edges["day"], name


def test_a_hard_city_is_drawn_from_its_seed_and_kept_apart_from_the_easy_one(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        draw_city(tmp_path / name, seed=4, database_images=6, query_images=4, size=SIZE, workers=1, hard=True)
        files = sorted((tmp_path / name / "images").rglob("*.jpg"))
        drawn.append([(path.name, path.read_bytes()) for path in files])
    assert len(drawn[0]) == 10
    assert drawn[0] == drawn[1]
    assert json.loads((tmp_path / "a" / "city.json").read_text())["hard"] is True
    with pytest.raises(CityError, match="other values"):
        draw_city(tmp_path / "a", seed=4, database_images=6, query_images=4, size=SIZE)

"""The procedural city: reproducible from its seed, with exact poses, geometry and light."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import utm
from PIL import Image

from models.images.decoder import decode_image
from pipelines.demo.camera import Camera, Pose
from pipelines.demo.dataset import draw_city
from pipelines.demo.plan import plan_city
from pipelines.demo.scene import render_view
from pipelines.demo.shots import QUERY_CONDITIONS, CityError, plan_shots
from pipelines.sources import parse_standard_name
from tests.support.paths import ROOT

SIZE = (96, 72)


def digests(folder: Path, split: str = "test") -> dict[str, str]:
    files = sorted((folder / "images" / split).rglob("*.jpg"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def small(out: Path, *, seed: int = 3, workers: int = 1) -> dict[str, str]:
    draw_city(out, seed=seed, database_images=30, query_images=6, size=SIZE, workers=workers)
    return digests(out)


@pytest.mark.integration
def test_same_seed_draws_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    alone, together, other = (
        small(tmp_path / "a"),
        small(tmp_path / "b", workers=2),
        small(tmp_path / "c", seed=4),
    )
    assert len(alone) == 36
    assert alone == together
    assert not set(alone.values()) & set(other.values())
    assert len(set(alone.values())) == 36


@pytest.mark.integration
def test_draw_city_resumes_and_refuses_another_city(tmp_path: Path) -> None:
    whole = small(tmp_path / "a")
    for path in sorted((tmp_path / "a" / "images").rglob("*.jpg"))[::3]:
        path.unlink()
    again = draw_city(tmp_path / "a", seed=3, database_images=30, query_images=6, size=SIZE, workers=1)
    assert again.drawn == 12
    assert digests(tmp_path / "a") == whole
    with pytest.raises(CityError, match="other values"):
        draw_city(tmp_path / "a", seed=4, database_images=30, query_images=6, size=SIZE)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.doc").touch()
    with pytest.raises(CityError, match="something other"):
        draw_city(tmp_path / "b")


@pytest.mark.parametrize(
    "wrong",
    [
        {"database_images": 1},
        {"query_images": -1},
        {"seed": -1},
        {"size": (8, 8)},
        {"workers": 0},
        {"split": "all"},
    ],
)
def test_invalid_values_are_refused_before_drawing(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(CityError, match="give"):
        draw_city(tmp_path / "c", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()


def test_plan_shots_names_carry_the_exact_pose() -> None:
    _, shots = plan_shots(seed=1, database_images=200, query_images=30)
    corner: set[tuple[float, float]] = set()
    for shot in shots:
        pose = parse_standard_name(shot.name)
        corner.add((round(pose["utm_e"] - shot.pose.x_m, 2), round(pose["utm_n"] - shot.pose.y_m, 2)))
        assert pose["heading_deg"] == shot.pose.heading_deg
        east, north, number, letter = utm.from_latlon(pose["lat"], pose["lon"])
        assert math.hypot(east - pose["utm_e"], north - pose["utm_n"]) < 0.5
        assert f"{number}{letter}" == pose["utm_zone"]
    assert len(corner) == 1


def test_plan_shots_database_sees_both_sides_and_queries_stand_near_it() -> None:
    _, shots = plan_shots(seed=2, database_images=120, query_images=30)
    database = [shot for shot in shots if shot.folder == "database"]
    queries = [shot for shot in shots if shot.folder == "queries"]
    assert (len(database), len(queries)) == (120, 30)
    places: dict[tuple[float, float], list[float]] = {}
    for shot in database:
        places.setdefault((shot.pose.x_m, shot.pose.y_m), []).append(shot.pose.heading_deg)
    assert all(abs((a - b + 180) % 360 - 180) > 90 for a, b in places.values())
    spots = np.array(list(places))
    gaps = np.hypot(*(spots[1:] - spots[:-1]).T)
    assert np.isclose(gaps, 10.0).mean() > 0.7  # the rest are turns into another street
    for shot in queries:
        away = np.hypot(spots[:, 0] - shot.pose.x_m, spots[:, 1] - shot.pose.y_m).min()
        assert 0.1 < away < 8.0
    assert {shot.condition for shot in queries} == set(QUERY_CONDITIONS)
    assert len({(shot.pose, shot.moment) for shot in queries}) == 30


def test_conditions_change_brightness_and_colour() -> None:
    city = plan_city(seed=0, places=40)
    place = next(iter(city.places()))
    pose = Pose(place.x_m, place.y_m, 28.0)
    views = {
        name: render_view(city, pose, condition=name, size=(160, 120)).astype(float)
        for name in ("day", *QUERY_CONDITIONS)
    }

    def colourfulness(pixels: np.ndarray) -> float:
        return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())

    road = np.s_[100:, 100:]
    assert views["night"].mean() < 0.6 * views["day"].mean()
    assert views["snow"][road].mean() > 1.3 * views["day"][road].mean()
    assert colourfulness(views["overcast"]) < 0.8 * colourfulness(views["day"])
    moved = render_view(city, pose, condition="day", moment=5, size=(160, 120)).astype(float)
    assert 0 < np.mean(np.abs(moved - views["day"]).max(axis=2) > 25) < 0.5


def test_camera_projects_as_a_pinhole_and_pictures_follow_it() -> None:
    camera = Camera(Pose(10.0, 20.0, 90.0, pitch_deg=0.0, height_m=2.0), size=(320, 240))
    pixels, depths = camera.project(np.array([[30.0, 20.0, 2.0], [30.0, 15.0, 2.0], [30.0, 20.0, 7.0]]))
    focal = camera.intrinsics[0, 0]
    assert np.allclose(depths, 20.0)
    # Looking east: south is right, up is up.
    assert np.allclose(pixels, [[160, 120], [160 + focal * 5 / 20, 120], [160, 120 - focal * 5 / 20]])

    # Turning the camera moves the far picture by focal * tan(angle); compare the day without cars and people.
    city = plan_city(seed=0, places=40)
    place = next(iter(city.places()))
    first = render_view(city, Pose(place.x_m, place.y_m, 28.0, pitch_deg=0.0))
    turned = render_view(city, Pose(place.x_m, place.y_m, 28.0 + 2.0, pitch_deg=0.0))
    shift = round(focal * math.tan(math.radians(2.0)))
    middle = np.s_[60:120, 140:180]
    errors = {
        move: float(np.abs(first[60:120, 140 + move : 180 + move].astype(float) - turned[middle]).mean())
        for move in range(-3 * shift, 3 * shift + 1)
    }
    assert abs(min(errors, key=lambda move: errors[move]) - shift) <= 1


def test_views_match_the_golden_image() -> None:
    city, shots = plan_shots(seed=5, database_images=60, query_images=30)
    chosen = {shot.condition: shot for shot in shots}
    views = [
        render_view(city, chosen[name].pose, condition=name, moment=chosen[name].moment, size=SIZE)
        for name in ("day", "night", "snow", "overcast")
    ]
    golden = np.asarray(Image.open(ROOT / "tests/golden/demo_views.png"))
    difference = np.abs(np.concatenate(views, axis=1).astype(int) - golden)
    # Processors round a pixel in a hundred thousand differently.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


def test_splits_of_a_data_set_are_different_cities(tmp_path: Path) -> None:
    for split, seed in (("train", 1), ("val", 2)):
        draw_city(tmp_path, seed=seed, database_images=4, query_images=2, size=SIZE, split=split)
    draw_city(tmp_path, seed=1, database_images=4, query_images=2, size=SIZE, split="train")
    pictures = {split: digests(tmp_path, split) for split in ("train", "val")}
    assert [len(names) for names in pictures.values()] == [6, 6]
    assert not set(pictures["train"].values()) & set(pictures["val"].values())
    with pytest.raises(CityError, match="other values"):
        draw_city(tmp_path, seed=2, database_images=4, query_images=2, size=SIZE, split="train")


def test_pictures_match_their_names(tmp_path: Path) -> None:
    draw_city(tmp_path, seed=1, database_images=2, query_images=3, size=SIZE, workers=1)
    files = sorted((tmp_path / "images").rglob("*.jpg"))
    assert [decode_image(path.read_bytes()).pixels.shape for path in files] == [(SIZE[1], SIZE[0], 3)] * 5
    notes = sorted(path.name.split("@")[-2] for path in files)
    assert notes == ["day", "day", "night", "overcast", "snow"]

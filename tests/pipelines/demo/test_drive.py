"""Drives through the drawn city: where they go, and what their files say."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipelines.demo.drive import DRIVE_CONDITIONS, Frame, draw_drive, plan_drive
from pipelines.demo.shots import CityError
from pipelines.sources import list_source

CITY = {"seed": 2, "database_images": 432}


def turned_deg(frames: tuple[Frame, ...]) -> np.ndarray:
    headings = np.array([frame.motion.heading_deg for frame in frames])
    return (np.diff(headings) + 180) % 360 - 180


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_drive_turns_stops_and_leaves_the_city_once(hard: bool, seed: int) -> None:
    _, frames = plan_drive(seed=seed, database_images=432, hard=hard, frames=160)
    assert len(frames) > 140
    inside = [frame.inside for frame in frames]
    assert inside[0]
    assert sum(a != b for a, b in pairwise(inside)) in (1, 2), "out once, and back if there is time"
    assert 15 <= inside.count(False) <= 80
    steps = np.diff([frame.motion.travelled_m for frame in frames])
    assert (steps >= 0).all()
    assert steps.max() <= 8.1
    assert (steps < 0.1).sum() >= 2, "it stops"
    assert np.abs(turned_deg(frames)).max() > 30, "it turns"
    moved = [
        math.hypot(b.motion.x_m - a.motion.x_m, b.motion.y_m - a.motion.y_m) for a, b in pairwise(frames)
    ]
    assert (np.array(moved) <= steps + 0.6).all(), "no jumps"


def test_the_same_values_plan_the_same_drive_and_others_another() -> None:
    first, again, other = (plan_drive(**CITY, number=number)[1] for number in (0, 0, 1))
    assert first == again
    assert [frame.pose for frame in first] != [frame.pose for frame in other]


def test_odometry_is_near_the_truth_and_not_it() -> None:
    _, frames = plan_drive(**CITY, frames=200)
    steps = np.diff([frame.motion.travelled_m for frame in frames])
    measured = np.array([frame.distance_m for frame in frames])[1:]
    assert measured[steps == 0].tolist() == [0.0] * int((steps == 0).sum())
    assert 0 < np.abs(measured - steps).mean() < 1.5
    assert np.abs(np.array([frame.turn_deg for frame in frames])[1:] - turned_deg(frames)).mean() < 4


def test_a_faster_camera_takes_shorter_steps() -> None:
    _, frames = plan_drive(**CITY, frames=100, frames_per_s=4.0)
    assert np.diff([frame.motion.travelled_m for frame in frames]).max() <= 2.5


def test_a_drawn_drive_has_frames_odometry_and_truth(tmp_path: Path) -> None:
    drive = draw_drive(tmp_path / "drive", **CITY, frames=10, size=(64, 48), condition="snow")
    names = sorted(path.name for path in drive.frames_folder.iterdir())
    assert names == [frame.name for frame in drive.frames]
    assert names[0] == "000000.jpg", "names say nothing about the pose"
    with drive.odometry.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == names
    listed = list_source(tmp_path / "drive/truth.csv").to_pylist()
    assert [row["utm_e"] for row in listed] == pytest.approx(
        [601_000.0 + frame.pose.x_m for frame in drive.frames]
    )
    assert listed[3]["heading_deg"] == drive.frames[3].pose.heading_deg
    before = {path: path.stat().st_mtime_ns for path in drive.frames_folder.iterdir()}
    draw_drive(tmp_path / "drive", **CITY, frames=10, size=(64, 48), condition="snow")
    assert {path: path.stat().st_mtime_ns for path in drive.frames_folder.iterdir()} == before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"frames": 3}, "10 to 10000 frames"),
        ({"frames_per_s": 0.0}, "per second"),
        ({"condition": "fog"}, f"one of {', '.join(DRIVE_CONDITIONS)}"),
        ({"database_images": 8}, "draw a larger city"),
    ],
)
def test_what_cannot_be_driven_is_refused(tmp_path: Path, values: dict[str, object], words: str) -> None:
    with pytest.raises(CityError, match=words):
        draw_drive(tmp_path / "drive", **{**CITY, **values})  # type: ignore[arg-type]

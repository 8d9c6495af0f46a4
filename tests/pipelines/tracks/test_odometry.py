"""Odometry files as robots and phones write them, and as nobody should."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.tracks.frames import BadDrive
from pipelines.tracks.odometry import read_odometry

FRAMES = ["drive/0.jpg", "drive/1.jpg", "drive/2.jpg"]


def motions(tmp_path: Path, text: str) -> list[tuple[float | None, float | None]]:
    path = tmp_path / "odometry.csv"
    path.write_text(text, encoding="utf-8")
    return [(motion.distance_m, motion.turn_deg) for motion in read_odometry(path, FRAMES)]


def test_distances_and_turns(tmp_path: Path) -> None:
    text = "distance_m,turn_deg\n0,0\n5.5,-3\n,\n"
    assert motions(tmp_path, text) == [(0.0, 0.0), (5.5, -3.0), (None, None)]


def test_speeds_and_headings(tmp_path: Path) -> None:
    text = "time_s,speed_m_per_s,heading_deg\n0,8,350\n0.5,8,10\n2.5,4,20\n"
    assert motions(tmp_path, text) == [(0.0, 0.0), (4.0, -340.0), (8.0, 10.0)]


def test_rows_are_found_by_the_names_of_frames(tmp_path: Path) -> None:
    text = "frame,distance_m\n2.jpg,2\nother.jpg,9\nsub/0.jpg,0\n1.jpg,1\n"
    assert [distance for distance, _ in motions(tmp_path, text)] == [0.0, 1.0, 2.0]


def test_the_rate_follows_from_times_where_a_distance_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "odometry.csv"
    path.write_text("time_s,distance_m\n0,\n0.1,\n5.1,\n")
    slow, fast = (read_odometry(path, FRAMES)[at].fastest_m for at in (1, 2))
    assert fast == pytest.approx(50 * slow)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed\n1\n2\n3\n", "needs the columns"),
        ("distance_m\n1\n2\n", "2 rows for 3 frames"),
        ("distance_m\n1\nnan\n3\n", "row 2 has 'nan'"),
        ("distance_m\n1\n=2+3\n3\n", "row 2 has '=2"),
        ("distance_m\n1\n-2\n3\n", "row 2 travels -2 m"),
        ("distance_m\n1\n1e99\n3\n", "row 2 travels"),
        ("frame,distance_m\n0.jpg,1\n1.jpg,1\n", "no row for the frame 2.jpg"),
        ("time_s,distance_m\n0,1\n5,1\n4,1\n", "time_s falls at row 3"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadDrive, match=words.replace("+", r"\+")):
        motions(tmp_path, text)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name, words in (("missing.csv", "cannot be read"), ("binary.csv", "not UTF-8")):
        with pytest.raises(BadDrive, match=words):
            read_odometry(tmp_path / name, FRAMES)

"""Frames in the order in which they were taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.tracks import frames as frames_module
from pipelines.tracks.frames import BadDrive, frames_of
from tests.support.pictures import write_photos


def test_a_folder_is_taken_by_the_numbers_in_names(tmp_path: Path) -> None:
    photo = write_photos(tmp_path / "one", 1)[0].read_bytes()
    for name in ("frame10.jpg", "frame9.jpg", "frame1.jpg", "b2.jpg", "notes.txt"):
        (tmp_path / "drive").mkdir(exist_ok=True)
        (tmp_path / "drive" / name).write_bytes(photo)
    names = [Path(frame).name for frame in frames_of([str(tmp_path / "drive")])]
    assert names == ["b2.jpg", "frame1.jpg", "frame9.jpg", "frame10.jpg"]


def test_files_keep_their_order(tmp_path: Path) -> None:
    assert frames_of(["b.jpg", "a.jpg"]) == ["b.jpg", "a.jpg"]
    with pytest.raises(BadDrive, match="one folder alone"):
        frames_of(["b.jpg", str(tmp_path)])


def test_too_many_frames_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "MAX_FRAMES", 2)
    with pytest.raises(BadDrive, match="in parts"):
        frames_of(["a", "b", "c"])


def test_names_of_digits_without_end_are_ordered_as_text(tmp_path: Path) -> None:
    names = [f"{'9' * 5000}.jpg", "1.jpg"]
    assert sorted(names, key=frames_module.natural_key) == sorted(names, key=frames_module.natural_key)

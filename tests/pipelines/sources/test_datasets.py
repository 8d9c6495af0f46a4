"""Layouts of data sets: which folders hold the database and the queries."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.sources import SourceError, list_source, open_dataset, parse_standard_name
from tests.support.pictures import write_photos


def make(root: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        write_photos(root / folder, 1, first=number)
    return root


@pytest.mark.parametrize(
    ("folders", "split", "queries", "name"),
    [
        (["database", "queries"], "test", "queries", "set"),
        (["images/test/database", "images/test/queries"], "test", "images/test/queries", "set"),
        (["val/database", "val/queries", "train/database", "train/queries"], "val", "val/queries", "set"),
        (["test/gallery", "test/queries_night"], "test", "test/queries_night", "set queries_night"),
        (["gallery", "queries", "queries_night", "queries_rain"], "test", "queries", "set"),
    ],
)
def test_known_layouts_are_recognised(
    tmp_path: Path, folders: list[str], split: str, queries: str, name: str
) -> None:
    root = make(tmp_path / "set", *folders)
    dataset = open_dataset(root, split=split)
    assert dataset.database == root / folders[0]
    assert dataset.queries == root / queries
    assert dataset.name == name


def test_several_conditions_are_chosen_by_name(tmp_path: Path) -> None:
    root = make(
        tmp_path / "svox", *(f"images/test/{name}" for name in ("gallery", "queries_night", "queries_rain"))
    )
    with pytest.raises(SourceError, match="name one of queries_night, queries_rain with --queries"):
        open_dataset(root)
    dataset = open_dataset(root, queries="queries_rain")
    assert dataset.queries == root / "images/test/queries_rain"
    assert dataset.database == root / "images/test/gallery"
    assert dataset.name == "svox queries_rain"


def test_the_map_of_a_data_set_is_its_database_alone(tmp_path: Path) -> None:
    layouts = {
        "svox": ("images/test/gallery", "images/test/queries_night", "images/test/queries_rain"),
        "msls": ("val/database", "val/queries", "train/database", "train/queries"),
        "plain": ("database", "queries"),
        "training": ("images/train/database", "images/train/queries"),
    }
    for name, folders in layouts.items():
        listed = list_source(make(tmp_path / name, *folders))
        assert [row["source"] for row in listed.to_pylist()] == [str(tmp_path / name / folders[0])]
    album = make(tmp_path / "album", "gallery", "holidays")
    assert list_source(album).num_rows == 2


def test_sides_are_named_by_folder_or_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, "set/database", "set/queries", "photos"))
    Path("night.csv").write_text("path\nphotos/a.jpg\n")
    assert open_dataset("set", queries="night.csv").queries == tmp_path / "night.csv"
    assert open_dataset("set", queries="database").queries == tmp_path / "set/database"
    both = open_dataset(None, database="set/database", queries=tmp_path / "night.csv")
    assert (both.database, both.queries) == (tmp_path / "set/database", tmp_path / "night.csv")
    assert open_dataset("photos", database="set/database", queries="night.csv").name == "photos"
    with pytest.raises(SourceError, match="--queries nothing does not exist"):
        open_dataset("set", queries="nothing")
    with pytest.raises(SourceError, match="give --database and --queries"):
        open_dataset(None, queries="night.csv")
    with pytest.raises(SourceError, match="with --database and --queries"):
        open_dataset("photos")


def test_a_prefix_before_the_first_field_of_a_name_is_ignored() -> None:
    plain = parse_standard_name("@500000.00@4000000.00@33@T@@@a@@@@@@@@.jpg")
    assert plain["utm_zone"] == "33T"
    assert parse_standard_name("night_0001@500000.00@4000000.00@33@T@@@a@@@@@@@@.jpg") == plain
    degrees = parse_standard_name("q@584286.37@4477236.93@@@40.44229@-79.99@a@@@@@@@@.jpg")
    assert degrees["lat"] == 40.44229
    for name in ("me@1@2@.jpg", "me@1@2@home@x@y@z@.jpg", "me@1@2@99@@@@.jpg", "me@1@2@@@nan@nan@.jpg"):
        assert parse_standard_name(name) == {}

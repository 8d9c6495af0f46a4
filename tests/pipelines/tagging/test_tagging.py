"""Tags of stored images: counted, added, removed, chosen by id, source and filter; given while indexing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.cli import main
from pipelines.indexing.reconcile import Change, reconcile
from pipelines.sources import list_source
from pipelines.sources.schema import LISTING_SCHEMA
from pipelines.tagging.change import MAX_TAGS, BadTag, TagChange
from pipelines.tagging.job import NothingSelected, tag_store
from pipelines.tagging.listing import tagged
from serving.priors.errors import TagsNotKept
from storage.search.filters import Near, Tagged
from storage.search.filters.tags import tags_of
from storage.store import Store
from tests.support.pictures import write_photos
from tests.support.store_samples import (
    contents,
    copied_store,
    make_old_store,
    make_relearned_store,
    make_store,
)

IDS = [f"p{n:02}" for n in range(12)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return copied_store(tmp_path / "store", IDS)


def tags(store: Store) -> dict[str, tuple[str, ...]]:
    rows = Store.open(store.uri).metadata()
    pairs = zip(rows["image_id"].to_pylist(), rows["tags"].to_pylist(), strict=True)
    return {image_id: tags_of(text) for image_id, text in pairs if text is not None}


def test_tags_are_added_removed_and_counted_and_nothing_else_changes(store: Store) -> None:
    before = contents(store)
    report = tag_store(store.uri, TagChange(add=("night", "d\u00e4mmerung")), image_ids=IDS[:3])
    assert (report.selected, report.changed, report.tags) == (3, 3, {"d\u00e4mmerung": 3, "night": 3})
    assert tags(store) == dict.fromkeys(IDS[:3], ("night", "dämmerung"))
    report = tag_store(store.uri, TagChange(add=("rain",), remove=("night",)), image_ids=IDS[1:4])
    assert report.changed == 3
    assert tags(store)[IDS[1]] == ("d\u00e4mmerung", "rain")
    assert tags(store)[IDS[3]] == ("rain",)
    counted = tag_store(store.uri, TagChange())
    assert (counted.selected, counted.changed) == (12, 0)
    assert counted.tags == {"d\u00e4mmerung": 3, "rain": 3, "night": 1}
    assert contents(Store.open(store.uri)) == before
    assert Store.open(store.uri).verify().ok


def test_a_change_that_changes_nothing_writes_no_version(store: Store) -> None:
    tag_store(store.uri, TagChange(add=("night",)), image_ids=IDS[:2])
    version = Store.open(store.uri).version
    assert tag_store(store.uri, TagChange(add=("night",)), image_ids=IDS[:2]).changed == 0
    assert tag_store(store.uri, TagChange(remove=("rain",)), everything=True).changed == 0
    preview = tag_store(store.uri, TagChange(add=("rain",)), everything=True, dry_run=True)
    assert (preview.changed, preview.tags["rain"]) == (12, 12)
    assert Store.open(store.uri).version == version
    assert len(tags(store)) == 2


def test_the_last_tag_of_an_image_leaves_none(store: Store) -> None:
    tag_store(store.uri, TagChange(add=("night",)), image_ids=IDS[:1])
    tag_store(store.uri, TagChange(remove=("night",)), everything=True)
    assert tags(store) == {}


def test_several_selections_choose_what_is_in_all_of_them(store: Store) -> None:
    place = next(row for row in store.places(12) if row["lat"] is not None)
    near = Near(place["lat"], place["lon"], 5.0)
    found = tag_store(store.uri, TagChange(add=("here",)), within=near)
    assert place["image_id"] in tags(store)
    assert 0 < found.selected < 12
    report = tag_store(store.uri, TagChange(add=("first",)), within=Tagged("here"), image_ids=IDS)
    assert report.selected == found.selected
    none = tag_store(store.uri, TagChange(add=("x",)), within=Tagged("no such"), everything=True)
    assert (none.selected, none.changed) == (0, 0)


def test_images_are_chosen_by_their_source(tmp_path: Path) -> None:
    store = make_relearned_store(tmp_path / "store", IDS)
    report = tag_store(store.uri, TagChange(add=("northern",)), source="/photos/north")
    assert report.selected == 11
    assert tag_store(store.uri, TagChange(), source="/photos/south").selected == 0


@pytest.mark.parametrize(
    "change", [{"add": ("",)}, {"add": ("a\nb",)}, {"add": ("x" * 201,)}, {"add": ("a",), "remove": ("a",)}]
)
def test_tags_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadTag):
        TagChange(**change)


def test_an_image_has_a_bounded_number_of_tags() -> None:
    full = TagChange(add=tuple(map(str, range(MAX_TAGS)))).applied(None)
    with pytest.raises(BadTag, match="remove some"):
        TagChange(add=("one more",)).applied(full)
    assert TagChange(add=("one more",), remove=("0",)).applied(full) is not None


def test_nothing_is_changed_without_a_choice_or_with_an_unknown_id(store: Store) -> None:
    for options in ({}, {"image_ids": ["p00", "nobody"]}):
        with pytest.raises(NothingSelected):
            tag_store(store.uri, TagChange(add=("x",)), **options)  # type: ignore[arg-type]
    assert tags(store) == {}


def test_a_store_of_an_older_format_is_to_be_upgraded_first(tmp_path: Path) -> None:
    old = make_old_store(tmp_path / "old", IDS[:3])
    with pytest.raises(TagsNotKept, match="placeray upgrade --store"):
        tag_store(old.uri, TagChange(add=("x",)), everything=True)
    assert main(["tag", "--store", old.uri, "--add", "x", "--all"]) == 5
    assert main(["upgrade", "--store", old.uri]) == 0
    assert main(["tag", "--store", old.uri, "--add", "x", "--all"]) == 0
    assert len(tags(old)) == 3


def test_the_command_line_changes_and_counts_tags(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "--store", store.uri, "--add", "night"]) == 2
    assert "no image is chosen" in capsys.readouterr().err
    chosen = ["--id", IDS[0], "--id", IDS[1]]
    assert main(["tag", "--store", store.uri, "--add", "night", *chosen, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["selected"], report["changed"], report["tags"]) == (2, 2, {"night": 2})
    assert main(["tag", "--store", store.uri, "--tag", "night", "--remove", "night", "--dry-run"]) == 0
    assert "2 would change" in capsys.readouterr().out
    assert main(["tag", "--store", store.uri]) == 0
    assert "night" in capsys.readouterr().out


def listing_of(ids: list[str], texts: list[str | None]) -> pa.Table:
    rows = [{"image_id": key, "tags": text} for key, text in zip(ids, texts, strict=True)]
    return pa.Table.from_pylist(rows, schema=LISTING_SCHEMA)


def test_indexing_with_a_tag_keeps_the_tags_of_the_listing_or_of_the_store(store: Store) -> None:
    tag_store(store.uri, TagChange(add=("by hand",)), image_ids=IDS[:2])
    listing = listing_of([IDS[0], IDS[1], "new", IDS[5]], ['["listed"]', None, None, None])
    result = tagged(listing, Store.open(store.uri).metadata(), ("survey",))
    assert [tags_of(text) for text in result["tags"].to_pylist()] == [
        ("listed", "survey"), ("by hand", "survey"), ("survey",), ("survey",),
    ]  # fmt: skip
    assert tagged(listing, store.metadata(), ()) is listing


def test_an_older_store_is_refused_before_anything_is_indexed_with_a_tag(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    old = make_old_store(tmp_path / "old", IDS[:3])
    change, listing = Change(tags=("survey",)), list_source(tmp_path / "photos")
    with old.lease(), pytest.raises(TagsNotKept, match="placeray upgrade"):
        reconcile(old, listing, change)
    new = make_store(tmp_path / "new", IDS[:3])
    with new.lease():
        work = reconcile(new, listing, change).work
    assert [tags_of(text) for text in work["tags"].to_pylist()] == [("survey",)] * 2

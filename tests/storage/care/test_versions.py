"""Versions of a store: listing, tagging, going back, and forgetting photos."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.commit.version_tags import NoSuchVersion
from storage.errors import CorruptStore
from storage.search.index_partition import IndexPartition
from storage.store import Store
from tests.support.search_samples import seeded_queries
from tests.support.store_samples import DIM, contents, make_card, make_old_store, make_rows, make_store

QUERIES = seeded_queries(1, 3, DIM)


def grow(store: Store, ids: list[str], generation: int = 0) -> int:
    with store.lease():
        return store.commit(make_rows(store, ids, generation))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "s", [f"id{i:02d}" for i in range(20)])


def test_history_says_who_changed_what(store: Store) -> None:
    with store.lease():
        store.delete(["id00"])
        store.amend(pa.table({"image_id": ["id01"], "lat": [1.0], "lon": [2.0]}))
    versions = store.versions()
    assert [each.change for each in versions[-4:]] == [
        *("wrote 10 rows", "wrote 10 rows", "deleted 1 rows", "changed metadata of 1 rows"),
    ]
    assert [each.rows_changed for each in versions[-3:]] == [10, -1, 0]
    assert all("@" in each.by for each in versions[-4:])
    assert [each.newest for each in versions] == [False] * (len(versions) - 1) + [True]


def test_history_of_a_store_that_noted_nothing(tmp_path: Path) -> None:
    store = make_old_store(tmp_path / "s", ["a", "b"])
    (tmp_path / "s" / "HISTORY").unlink()
    assert [(each.rows, each.change, each.by) for each in store.versions()] == [(0, "", ""), (2, "", "")]


def test_going_back_makes_a_new_version_with_the_old_content(store: Store) -> None:
    before, expected = store.version, contents(store)
    hits = store.search(QUERIES, k=50)
    grow(store, ["id03", "new"], generation=5)
    with store.lease():
        store.delete(["id04", "id05"])
        follower, newest = Store.open(store.uri), store.version
        follower.search(QUERIES, k=1)
        assert store.roll_back(str(before)) > newest
    assert contents(store) == expected
    assert store.verify().ok
    assert follower.refresh()
    assert follower.search(QUERIES, k=50) == hits == Store.open(store.uri).search(QUERIES, k=50)
    assert store.versions()[-1].change == f"rolled back to version {before}"
    grow(store, ["id04", "later"], generation=7)  # the keys that are there are known again
    assert store.count == 21
    assert len(set(store.metadata()["image_id"].to_pylist())) == 21


def test_going_back_before_a_relearn_takes_the_card_of_then(store: Store) -> None:
    before, card = store.version, store.card
    words = b"words"
    learned = make_card().stored_as(
        "float16", aggregation_sha256=hashlib.sha256(words).hexdigest(), descriptor_dim=DIM
    )
    ids = store.metadata()["image_id"].to_pylist()
    part = IndexPartition(store.uri)
    with store.lease():
        store.replace_descriptors(learned, [(ids, seeded_queries(9, len(ids), DIM))], artifacts=[words])
        assert store.card.sha256 == learned.sha256
        part.refresh()
        numbers = [each.version for each in store.versions()]
        store.roll_back(str(before))
    assert store.card == card
    assert part.refresh()
    assert part.card == card
    assert part.search(QUERIES, k=5)[0].hits == Store.open(store.uri).search(QUERIES, k=5)[0]
    assert len(numbers) == len(set(numbers))
    assert all("_next" not in name for name in store.snapshot.table.schema.names)


def test_compaction_keeps_tagged_versions_and_their_features(store: Store) -> None:
    with store.lease():
        tagged = store.tag_version("june")
    expected = contents(store)
    grow(store, [f"id{i:02d}" for i in range(20)], generation=1)
    grow(store, ["more"])
    report = store.compact(keep_versions_s=0, min_age_s=0)
    assert report.versions_removed > 0
    listed = store.versions()
    assert [each.tags for each in listed if each.tags] == [("june",)]
    gone = tagged - 1
    with (
        store.lease(),
        pytest.raises(NoSuchVersion, match=f"has no version {gone} any more.*placeray history"),
    ):
        store.roll_back(str(gone))
    at = Store.open(store.uri, at="june")
    assert (at.version, contents(at)) == (tagged, expected)
    with store.lease():
        store.roll_back("june")
    assert contents(store) == expected
    with store.lease():
        store.remove_tag("june")
        store.compact(keep_versions_s=0)
    assert len(store.versions()) <= 2


def test_a_reader_at_a_tag_follows_the_tag(store: Store) -> None:
    with store.lease():
        store.tag_version("live")
    part = IndexPartition(store.uri, at="live", keep_s=0)
    held = part.snapshot.version
    grow(store, ["new"])
    assert not part.refresh()
    assert part.snapshot.version == held
    assert "new" not in {hit.record.image_id for hit in part.search(QUERIES, k=99)[0].hits}
    with store.lease():
        store.tag_version("live")
    assert part.refresh()
    assert "new" in {hit.record.image_id for hit in part.search(QUERIES, k=99)[0].hits}
    with store.lease():
        store.tag_version("live", str(held))  # back again
    assert part.refresh()
    assert part.loaded_versions == (held,)
    assert len(part.search(QUERIES, k=99)[0].hits) == 20


@pytest.mark.parametrize("name", ["../june", "june/july", "", "12", ".hidden", "a" * 65])
def test_what_cannot_be_a_tag_is_refused(store: Store, name: str) -> None:
    with store.lease(), pytest.raises(NoSuchVersion, match="cannot be the name of a tag"):
        store.tag_version(name)
    assert list(Path(store.uri).glob("records.lance/_refs/tags/*")) == []


def test_tags_of_a_stranger_are_checked(store: Store) -> None:
    with store.lease():
        store.tag_version("june")
    path = Path(store.uri) / "records.lance/_refs/tags/june.json"
    for values in ({"version": 10**9}, {"version": "2"}, {}, []):
        path.write_text(json.dumps(values))
        with pytest.raises(CorruptStore, match="june"):
            Store.open(store.uri, at="june")


def test_forgotten_photos_leave_no_trace(store: Store, tmp_path: Path) -> None:
    folder = Path(store.uri)
    with store.lease():
        store.tag_version("with-it")
        store.delete(["id19"])
    (folder / "notes.csv").write_text("image_id,note\nid07,resized\nid08,resized\n")
    needle = np.asarray(store.snapshot.table.find("image_id", ["id07"])["descriptor"].to_pylist()[0])
    data = needle.astype(np.float16).tobytes()
    kept = {key: value for key, value in contents(store).items() if key != "id07"}

    def traces() -> list[str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        held = ((path, path.read_bytes()) for path in files)
        return [path.name for path, found in held if data in found or b"id07" in found or b"id19" in found]

    assert traces()
    with store.lease():
        report = store.forget(["id07", "id19", "never-there"])
    assert (report.asked, report.deleted, report.tags_removed) == (3, 1, ("with-it",))
    assert traces() == []
    assert contents(store) == kept
    assert store.verify().ok
    assert (folder / "notes.csv").read_text().split() == ["image_id,note", "id08,resized"]

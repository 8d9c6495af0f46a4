"""Copies of one committed version while a writer goes on, between folders and buckets."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.care.copying import copy_store
from storage.errors import CorruptStore, InvalidBatch
from storage.objects.location import objects_of, open_location
from storage.store import Store
from tests.support.store_samples import make_card, make_rows

Place = Callable[[str], str]


@pytest.fixture(params=["folder to bucket", "bucket to folder"])
def places(
    request: pytest.FixtureRequest, tmp_path: Path, moto_url: str, credentials: None
) -> tuple[str, str]:
    folder = str(tmp_path / "store")
    bucket = f"s3://placeray/{uuid.uuid4().hex}?endpoint={moto_url}"
    return (folder, bucket) if request.param == "folder to bucket" else (bucket, folder)


def store_at(uri: str, commits: int) -> Store:
    store = Store.create(uri, make_card())
    add(store, *range(commits))
    return store


def add(store: Store, *numbers: int) -> None:
    with store.lease():
        for number in numbers:
            store.commit(make_rows(store, [f"image-{number}-{at}" for at in range(4)]))


def descriptors(store: Store) -> dict[str, object]:
    return {row["image_id"]: (row["sha256"], row["shard"]) for row in store.metadata().to_pylist()}


def test_a_copy_is_of_the_version_at_its_start_whatever_is_committed_meanwhile(
    places: tuple[str, str],
) -> None:
    source, target = places
    store = store_at(source, 3)
    before, version = descriptors(store), store.version
    committed: list[int] = []

    def write(done: int, files: int) -> None:
        if done in (1, files // 2, files):
            add(store, 10 + len(committed))
            committed.append(done)

    report = copy_store(source, target, progress=write)
    assert len(committed) == 3
    assert (report.version, report.rows) == (version, len(before))
    copied = Store.open(target)
    assert copied.version == version
    assert descriptors(copied) == before
    assert copied.verify().ok
    assert Store.open(source).count == len(before) + 12
    with pytest.raises(InvalidBatch):  # the copy is finished, and the source is another version now
        copy_store(source, target)
    add(copied, 50)  # a copy is a store like any other
    assert Store.open(target).verify().ok


def test_an_interrupted_copy_goes_on_with_what_is_committed_by_then(places: tuple[str, str]) -> None:
    source, target = places
    store = store_at(source, 3)

    class Stopped(Exception):
        pass

    def stop(done: int, files: int) -> None:
        if done == files // 2:
            raise Stopped

    with pytest.raises(Stopped):
        copy_store(source, target, progress=stop)
    add(store, 10)
    report = copy_store(source, target)
    assert report.version == store.version
    assert report.files_copied < report.files
    assert descriptors(Store.open(target)) == descriptors(store)
    assert Store.open(target).verify().ok


def test_files_that_a_compaction_removed_are_named_and_the_next_copy_succeeds(
    places: tuple[str, str],
) -> None:
    source, target = places
    store = store_at(source, 4)
    shards = sorted(each.name for each in objects_of(open_location(source)).list("features"))

    def compact(done: int, files: int) -> None:
        if done == 1:  # as a compaction does with shards whose rows were rewritten
            with store.lease():
                store.delete(
                    [row["image_id"] for row in store.metadata().to_pylist() if row["image_id"] < "image-3"]
                )
                store.compact(keep_versions_s=0.0, min_age_s=0.0)

    with pytest.raises(CorruptStore) as raised:
        copy_store(source, target, progress=compact)
    assert raised.value.exit_code == 6
    assert len(objects_of(open_location(source)).list("features")) < len(shards)
    report = copy_store(source, target)
    assert report.rows == 4
    assert Store.open(target).verify().ok

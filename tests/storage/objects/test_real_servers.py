"""The tests of the contract, and of a store, on servers that check signatures: SeaweedFS and Azurite."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.objects.location import objects_of, open_location
from storage.objects.probe import require_conditions
from storage.objects.protocol import ObjectStore
from storage.store import Store
from tests.storage.objects import test_contract as contract
from tests.support.store_samples import contents, make_rows, make_store

pytestmark = pytest.mark.cluster

CONTRACT = [
    contract.test_what_was_put_is_got,
    contract.test_what_is_absent_or_too_large_is_refused,
    contract.test_ranges_of_many_objects,
    contract.test_a_write_under_a_condition,
    contract.of_several_writers_one_wins,
    contract.test_listing_and_removing,
]


@pytest.fixture
def objects(real_uri: str) -> ObjectStore:
    return objects_of(open_location(real_uri))


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda each: each.__name__.removeprefix("test_"))
def test_the_contract(objects: ObjectStore, promise: object) -> None:
    assert callable(promise)
    promise(objects)


def test_large_objects_go_in_parts(objects: ObjectStore) -> None:
    data = bytes(range(256)) * (50 << 10)  # 12.5 MiB
    objects.put("large", data)
    assert objects.get("large", len(data)).data == data
    assert objects.get_range("large", 6 << 20, 256) == bytes(range(256))


def test_conditions_are_honoured(objects: ObjectStore) -> None:
    require_conditions(objects)
    assert objects.list() == []


def test_a_store_grows_is_compacted_and_verified(real_uri: str, tmp_path: Path) -> None:
    uri = f"{real_uri}&cache_dir={tmp_path}"
    store = make_store(uri, [f"id{i}" for i in range(12)], batch=5)  # type: ignore[arg-type]
    with store.lease():
        store.commit(make_rows(store, ["id3", "new"], 1))
        store.delete(["id4"])
        store.compact(keep_versions_s=0.0, min_age_s=0.0)
    again = Store.open(uri)
    assert sorted(contents(again)) == sorted([*(f"id{i}" for i in range(12) if i != 4), "new"])
    assert again.verify().ok

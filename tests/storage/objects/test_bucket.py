"""Buckets behind a proxy that fails: what heals by itself, and what the errors say."""

from __future__ import annotations

import pickle
import traceback

import pytest

from storage.errors import StoreError
from storage.objects.bucket import BucketObjects
from storage.objects.bucket_path import BucketPath
from storage.objects.errors import (
    BucketNotFound,
    ConditionsIgnored,
    StorageForbidden,
    StorageThrottled,
    StorageUnreachable,
)
from storage.objects.location import location_uri, objects_of, open_location
from storage.objects.probe import require_conditions
from storage.objects.protocol import ConditionFailed
from storage.store import Store
from tests.support.fault_proxy import FaultProxy, Kind
from tests.support.object_servers import KEY_ID, SECRET
from tests.support.store_samples import make_card


@pytest.mark.parametrize("kind", ["503", "500", "truncate", "lost answer", "hang"])
def test_single_failures_of_reads_heal(faulty: FaultProxy, faulty_objects: BucketObjects, kind: Kind) -> None:
    faulty_objects.put("a", b"contents")
    faulty.fail(kind, method="GET", times=1)
    assert faulty_objects.get("a", 100).data == b"contents"
    assert faulty.faults[0].times == 0


@pytest.mark.parametrize("kind", ["503", "500", "lost answer", "hang"])
def test_single_failures_of_writes_heal(
    faulty: FaultProxy, faulty_objects: BucketObjects, kind: Kind
) -> None:
    faulty.fail(kind, method="PUT", times=1)
    faulty_objects.put("a", b"contents")
    assert faulty.faults[0].times == 0
    assert faulty_objects.get("a", 100).data == b"contents"


@pytest.mark.parametrize("kind", ["503", "500", "lost answer", "hang"])
def test_a_conditional_write_whose_answer_was_lost_is_recognised(
    faulty: FaultProxy, faulty_objects: BucketObjects, kind: Kind
) -> None:
    faulty.fail(kind, method="PUT", times=1)
    tag = faulty_objects.put_if_absent("HEAD", b"mine, nonce 1")
    assert faulty_objects.get("HEAD", 100) == (b"mine, nonce 1", tag)
    faulty.fail(kind, method="PUT", times=1)
    newer = faulty_objects.put_if_match("HEAD", b"mine, nonce 2", tag)
    assert faulty_objects.get("HEAD", 100) == (b"mine, nonce 2", newer)
    with pytest.raises(ConditionFailed):
        faulty_objects.put_if_absent("HEAD", b"another's, nonce 3")


@pytest.mark.parametrize(
    ("kind", "error"), [("503", StorageThrottled), ("500", StorageUnreachable), ("403", StorageForbidden)]
)
def test_what_lasts_is_an_error_of_its_name(
    faulty: FaultProxy, faulty_objects: BucketObjects, kind: Kind, error: type[StoreError]
) -> None:
    faulty.fail(kind)
    for act in (
        lambda: faulty_objects.get("a", 10),
        lambda: faulty_objects.list(),
        lambda: faulty_objects.delete(["a"]),
    ):
        with pytest.raises(error) as raised:
            act()
        assert raised.value.exit_code == 9
        shown = "".join(traceback.format_exception(raised.value))
        assert SECRET not in shown
        assert KEY_ID not in shown


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["503", "500", "hang"])
def test_writes_end_with_an_error_in_bounded_time(
    faulty: FaultProxy, faulty_objects: BucketObjects, kind: Kind
) -> None:
    faulty.fail(kind)
    for act in (lambda: faulty_objects.put("a", b""), lambda: faulty_objects.put_if_absent("a", b"1")):
        with pytest.raises((StorageThrottled, StorageUnreachable)):
            act()


def test_nobody_listens_and_no_such_bucket(bucket_uri: str) -> None:
    closed = objects_of(open_location("s3://placeray/x?endpoint=http://127.0.0.1:9"))
    with pytest.raises(StorageUnreachable, match=r"^s3://placeray/x cannot be reached"):
        closed.get("a", 10)
    absent = objects_of(open_location(bucket_uri.replace("://placeray/", "://not-there/")))
    with pytest.raises(BucketNotFound, match="there is no such bucket"):
        absent.get("a", 10)


def test_the_probe_passes_and_leaves_nothing(faulty_objects: BucketObjects) -> None:
    require_conditions(faulty_objects)
    assert faulty_objects.list() == []


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(
    faulty: FaultProxy, faulty_objects: BucketObjects, header: str
) -> None:
    faulty.dropped_headers = (header.lower(),)
    with pytest.raises(ConditionsIgnored, match=f"ignores the condition {header}"):
        require_conditions(faulty_objects)
    with pytest.raises(ConditionsIgnored):
        Store.create(faulty_objects.address.uri, make_card())
    faulty.dropped_headers = ()
    assert faulty_objects.list() == []


def test_a_location_shows_no_secret_and_travels(bucket_uri: str) -> None:
    location = open_location(bucket_uri)
    assert isinstance(location, BucketPath)
    copy = pickle.loads(pickle.dumps(location))
    assert copy == location
    assert location_uri(copy) == bucket_uri
    copy.objects.put("a", b"1")
    assert location.objects.get("a", 10).data == b"1"
    texts = (repr(location), str(location), str(vars(location.objects)))
    for text in (*texts, pickle.dumps(location).decode("latin1")):
        assert SECRET not in text
        assert KEY_ID not in text
    assert "endpoint" not in str(location)

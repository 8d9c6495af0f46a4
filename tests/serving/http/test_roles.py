"""What a role may see of where a photo lies."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from serving.answer import PlaceRecord
from serving.http.roles import shown_uri
from storage.position import Position


def record(uri: str, image_id: str = "street/1.jpg", source: str | None = None) -> Any:
    return SimpleNamespace(uri=uri, image_id=image_id, source=source)


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (record("/data/city/street/1.jpg", source="/data/city"), "street/1.jpg"),
        (record("/data/city/street/1.jpg", "7", "/data/city/"), "street/1.jpg"),
        (record("/data/city2/street/1.jpg", "7", "/data/city"), "1.jpg"),
        (record("/data/city/street/1.jpg", "7", "/data/listing.csv"), "1.jpg"),
        (record("/data/city/street/1.jpg"), "street/1.jpg"),
        (record("/data/city/street/1.jpg", "at:street/1.jpg"), "1.jpg"),
        (record("/data/city/street/1.jpg", "/data/city/street/1.jpg"), "1.jpg"),
        (record("1.jpg", "7"), "1.jpg"),
    ],
)
def test_a_role_that_reads_sees_no_absolute_path(record: Any, shown: str) -> None:
    for role in ("read", "open", "anything"):
        assert shown_uri(record, role) == shown
    assert shown_uri(record, "admin") == record.uri


def test_a_record_without_a_source_has_one_too() -> None:
    place = PlaceRecord("7", "/data/a.jpg", Position.of({}))
    assert shown_uri(place, "read") == "a.jpg"
    assert shown_uri(replace(place, image_id="data/a.jpg"), "read") == "data/a.jpg"

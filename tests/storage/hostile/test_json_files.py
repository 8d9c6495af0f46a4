"""JSON of a store, of any contents and values, ends in one short message."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from storage.card_files import first_card
from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.lease import Lease
from storage.commit.ledger import read_committed
from storage.errors import CardMismatch, CorruptStore, StoreLocked
from storage.store import Store
from tests.support.hostile_stores import IDS, VERBS, delete_one, name_card, refused_by_every_verb
from tests.support.store_samples import make_card


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


HOSTILE_JSON = {
    "empty": b"",
    "not JSON": b"card",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "UTF-16": '{"format_version": 1}'.encode("utf-16"),
    "zero bytes": b"\x00" * 1000,
    "an array": b"[]",
    "a number": b"1e400",
    "null": b"null",
    "a text": b'"text"',
    "brackets": nested(100_000).encode(),
    "open brackets": b"[" * 100_000,
    "open objects": b'{"a":' * 100_000,
    "digits": b"9" * 100_000,
    "NaN": b"NaN",
}


HOSTILE_VALUES = {
    "1e400": "1e400",
    "-1e400": "-1e400",
    "NaN": "NaN",
    "many digits": "9" * 5000,
    "beyond 64 bits": str(10**30),
    "negative": "-1",
    "fraction": "1.5",
    "true": "true",
    "null": "null",
    "text": '"../../victim/secret"',
    "array": "[1]",
    "object": "{}",
    "brackets": nested(100_000),
}


CARD_FIELDS = (
    *("format_version", "model", "weights_sha256", "descriptor_dim", "descriptor_dtype", "grid_height"),
    *("grid_width", "feature_dim", "feature_dtype", "metric"),
    *("preprocessing", "preprocessing.height", "preprocessing.resize", "preprocessing.mean"),
)


def replaced(text: str, field: str, value: str) -> bytes:
    """Return a JSON object with one of its fields, maybe of an inner object, replaced by any text."""
    values = json.loads(text)
    *outer, name = field.split(".")
    inner = values[outer[0]] if outer else values
    inner[name] = "PLACEHOLDER"
    return json.dumps(values).replace('"PLACEHOLDER"', value).encode()


@pytest.mark.parametrize("name", ["card.json", "COMMITTED"])
@pytest.mark.parametrize("data", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
def test_json_files_of_any_contents_are_refused_in_a_short_message(
    folder: Path, name: str, data: bytes
) -> None:
    (folder / name).write_bytes(data)
    for run in (Store.open, first_card if name == "card.json" else read_committed):
        with pytest.raises(CorruptStore) as caught:
            run(folder)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("field", CARD_FIELDS)
def test_card_values_of_any_type_are_refused_in_a_short_message(folder: Path, field: str) -> None:
    sound = (folder / "card.json").read_text()
    for name, value in HOSTILE_VALUES.items():
        (folder / "card.json").write_bytes(replaced(sound, field, value))
        with pytest.raises((CorruptStore, CardMismatch)) as caught:
            Store.open(folder)
        assert len(str(caught.value)) < 600, name
    (folder / "card.json").write_text(sound)
    assert Store.open(folder).count == len(IDS)


@pytest.mark.parametrize("field", ["version", "rows", "manifest_sha256", "card_sha256"])
def test_committed_values_of_any_type_are_refused_in_a_short_message(folder: Path, field: str) -> None:
    sound = (folder / "COMMITTED").read_text()
    for name, value in HOSTILE_VALUES.items():
        (folder / "COMMITTED").write_bytes(replaced(sound, field, value))
        with pytest.raises(CorruptStore) as caught:
            Store.open(folder)
        assert len(str(caught.value)) < 600, name
        assert not verify_store(folder).ok
    repair_store(folder)
    assert verify_store(folder).ok


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("descriptor_dim", 65_537),
        ("feature_dim", 10**9),
        ("grid_height", 10**6),
        ("preprocessing.height", 10**6),
        ("preprocessing.std", [0, 1, 1]),
        ("preprocessing.mean", [1e300, 0, 0]),
        ("model", "../models/evil.safetensors"),
        ("model", "/tmp/evil.pth"),
        ("model", "\x1b[2Jtiny"),
        ("model", "m" * 10_000),
        ("projection_sha256", "../../victim/secret"),
        ("projection_sha256", "/" + "0" * 63),
        ("aggregation_sha256", "../../victim/secret"),
        ("aggregation_sha256", "A" * 64),
        ("local_whitening_sha256", "/" + "0" * 63),
        ("local_whitening_sha256", "0" * 65),
        ("feature_encoding", "../../victim"),
        ("min_similarity", 1e308),
    ],
)
def test_card_values_out_of_range_are_refused(folder: Path, field: str, value: object) -> None:
    card = (folder / "card.json").read_text()
    (folder / "card.json").write_bytes(replaced(card, field, json.dumps(value)))
    with pytest.raises(CorruptStore) as caught:
        Store.open(folder)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("data", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
def test_cards_of_versions_of_any_contents_are_refused_in_a_short_message(folder: Path, data: bytes) -> None:
    name_card(folder, data)
    refused_by_every_verb(folder)


def test_a_card_of_another_model_than_card_json_is_refused(folder: Path) -> None:
    name_card(folder, make_card(model="other").upgraded().to_json().encode())
    for run in (Store.open, delete_one, VERBS["serve"]):
        with pytest.raises(CorruptStore, match="not of one store"):
            run(folder)


def test_a_card_of_a_newer_placeray_is_not_corrupt(folder: Path) -> None:
    values = json.loads((folder / "card.json").read_text()) | {"a_new_field": 1}
    name_card(folder, json.dumps(values).encode())
    for run in (Store.open, delete_one, verify_store, VERBS["serve"], repair_store):
        with pytest.raises(CardMismatch, match="newer placeray"):
            run(folder)


def test_a_lease_file_of_any_contents_is_taken(folder: Path) -> None:
    contents = (
        *HOSTILE_JSON.values(),
        b'{"beat": 1e400, "host": "elsewhere"}',
        b'{"beat": [], "host": {}}',
        b"\0" * (1 << 20),
    )
    for data in contents:
        (folder / "LEASE").write_bytes(data)
        with Lease(folder) as lease:
            lease.check()
            with pytest.raises(StoreLocked), Lease(folder):
                pass
    os.truncate(folder / "LEASE", 1 << 30)
    with Lease(folder) as lease:
        lease.check()

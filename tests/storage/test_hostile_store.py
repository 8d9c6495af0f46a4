"""Stores of others: nothing in one leads outside it, and hostile contents are refused with a message."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest

from storage.card_files import first_card
from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.lease import Lease
from storage.commit.ledger import acknowledge, read_committed, read_sums
from storage.errors import CardMismatch, CorruptStore, StoreError, StoreLocked
from storage.features.projection import read_projection
from storage.features.reader import FeatureReader
from storage.features.shards import shard_path
from storage.layout import is_shard_name, is_table_file_name, table_file
from storage.search.index_partition import IndexPartition
from storage.store import Store
from storage.table.checksums import add_checksums
from storage.table.lance_table import LanceTable
from tests.support.store_samples import (
    descriptor_of,
    make_card,
    make_rows,
    make_store,
    rows_of,
    with_value,
)

IDS = [f"id{i:02d}" for i in range(30)]
SHARD = "0123456789abcdef" * 2 + "-01234567"
# Where the victim lies, seen from features/, from records.lance/_versions/ and from the store's folder.
VICTIM = "victim/secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a store beside a folder of files that are none of its business."""
    (tmp_path / "victim").mkdir()
    for name in ("secret", "secret.parquet", f"{SHARD}.parquet", ".0123456789abcdef0123456789abcdef.tmp"):
        (tmp_path / "victim" / name).write_text(f"the contents of {name}")
    for path in (tmp_path / "victim").iterdir():
        os.utime(path, (0, 0))
    make_store(tmp_path / "store", IDS)
    return tmp_path / "store"


def outside(folder: Path) -> dict[str, tuple[bytes, int]]:
    victims = (folder.parent / "victim").rglob("*")
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in victims if path.is_file()}


@contextlib.contextmanager
def never_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where a file of the victim is opened, renamed or removed."""
    before = outside(folder)

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            follows = original.__name__ == "open" and not (args and args[0] & os.O_NOFOLLOW)
            name = os.fspath(path)
            real = os.path.realpath(name if follows else os.path.dirname(name))
            assert not real.startswith(str(folder.parent / "victim")), f"{original.__name__}({path})"
            return original(path, *args, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "rename", "unlink", "replace"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        yield
    assert outside(folder) == before


def write_foreign_rows(folder: Path, rows: pa.Table) -> None:
    """Commit rows as somebody would who has read the format, with checksums, past every check."""
    table = LanceTable.open(folder)
    table.append(add_checksums(rows, make_card()))
    acknowledge(folder, table, known=set(read_sums(folder)))


FOREIGN_SHARDS = {
    "parent": f"../../{VICTIM}",
    "parent of a shard's own name": f"../../victim/{SHARD}",
    "below a shard's own name": f"{SHARD}/../../../{VICTIM}",
    "dots": "..",
    "dot": ".",
    "empty": "",
    "word": "secret",
    "slash": f"a/{SHARD}",
    "trailing newline": SHARD + "\n",
    "zero byte": f"{SHARD}\x00",
    "escape": "\x1b[2J",
    "upper case": SHARD.upper(),
    "other digits": SHARD.replace("0", "\u0660"),
    "with suffix": f"{SHARD}.parquet",
    "long": "a" * 5000,
}


@pytest.mark.parametrize("name", FOREIGN_SHARDS.values(), ids=FOREIGN_SHARDS.keys())
def test_rows_of_foreign_shards_are_reported_and_taken_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_foreign_rows(folder, rows_of(make_card(), ["evil"], shard=name))
    with never_opened(folder, monkeypatch):
        report = verify_store(folder)
        assert [row.image_id for row in report.bad_rows] == ["evil"]
        store = Store.open(folder)
        _, ok = store.fetch(store.get(["evil", IDS[0]]))
        assert ok.tolist() == [False, True]
        with store.lease(), pytest.raises(CorruptStore, match="--repair"):
            store.compact(keep_versions_s=0)
        assert repair_store(folder).removed == ["evil"]
        assert verify_store(folder).ok
        with store.lease():
            store.compact(keep_versions_s=0)
    assert Store.open(folder).count == len(IDS)


def test_absolute_shard_names_are_reported_and_taken_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_foreign_rows(folder, rows_of(make_card(), ["evil"], shard=str(folder.parent / VICTIM)))
    with never_opened(folder, monkeypatch):
        assert repair_store(folder).removed == ["evil"]


@pytest.mark.parametrize("column", ["shard", "row", "uri", "width"])
def test_rows_without_a_required_value_are_damaged_whatever_their_checksum(folder: Path, column: str) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    write_foreign_rows(folder, with_value(rows, column, 0, None))
    assert [row.image_id for row in verify_store(folder).bad_rows] == ["evil"]
    assert Store.open(folder).get(["evil"]) == []
    assert repair_store(folder).removed == ["evil"]
    assert verify_store(folder).ok


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("lat", float("nan")),
        ("lon", float("inf")),
        ("lat", 91.0),
        ("utm_e", float("-inf")),
        ("heading_deg", float("nan")),
        ("captured_at", pa.scalar(2**62, pa.timestamp("us", tz="UTC"))),
    ],
)
def test_rows_with_values_out_of_range_are_damaged_whatever_their_checksum(
    folder: Path, column: str, value: object
) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    at = rows.schema.get_field_index(column)
    rows = rows.set_column(at, rows.schema.field(at), pa.array([value], rows.schema.field(at).type))
    write_foreign_rows(folder, rows)
    store = Store.open(folder)
    assert store.get(["evil"]) == []
    assert "evil" not in {hit.record.image_id for hit in store.search(descriptor_of("evil")[None], k=5)[0]}
    assert repair_store(folder).removed == ["evil"]
    assert verify_store(folder).ok


def test_rows_of_text_that_is_not_utf8_are_reported_and_taken_out(folder: Path) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    at = rows.schema.get_field_index("uri")
    text = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    write_foreign_rows(folder, rows.set_column(at, rows.schema.field(at), text))
    assert not verify_store(folder).ok
    repair_store(folder)
    assert verify_store(folder).ok
    assert Store.open(folder).count == len(IDS)


def test_a_shard_that_is_a_link_is_not_read_and_its_rows_are_taken_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(folder)
    [record] = store.get([IDS[0]])
    path = shard_path(folder, record.shard)
    path.rename(folder.parent / "victim" / path.name)
    path.symlink_to(folder.parent / "victim" / path.name)
    with never_opened(folder, monkeypatch):
        fresh = Store.open(folder)
        assert not fresh.fetch([record])[1][0]
        removed = {row.image_id for row in verify_store(folder).bad_rows}
        assert IDS[0] in removed
        assert set(repair_store(folder).removed) == removed
        assert verify_store(folder).ok


def test_a_pipe_in_place_of_a_shard_is_not_waited_for(folder: Path) -> None:
    [record] = Store.open(folder).get([IDS[0]])
    path = shard_path(folder, record.shard)
    path.unlink()
    os.mkfifo(path)
    assert not Store.open(folder).fetch([record])[1][0]
    assert IDS[0] in {row.image_id for row in verify_store(folder).bad_rows}


FOREIGN_SUMS = {
    "parent": f"records.lance/_versions/../../../{VICTIM}",
    "parent of data": f"records.lance/data/../../../{VICTIM}",
    "plain parent": f"../{VICTIM}",
    "dot": f"records.lance/_versions/./../../../{VICTIM}",
    "double slash": f"records.lance//_versions/../../../{VICTIM}",
    "another folder": f"features/{SHARD}.parquet",
    "the card": "card.json",
    "hidden": "records.lance/data/.hidden",
    "escape": "records.lance/data/\x1b[2J",
    "zero byte": "records.lance/data/a\x00b",
}


@pytest.mark.parametrize("name", FOREIGN_SUMS.values(), ids=FOREIGN_SUMS.keys())
@pytest.mark.parametrize("matches", [True, False], ids=["its digest", "another digest"])
def test_names_in_sha256sums_that_are_not_the_tables_are_reported_and_dropped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, matches: bool
) -> None:
    victim = (folder.parent / VICTIM).read_bytes()
    digest = hashlib.sha256(victim if matches else b"").hexdigest()
    with open(folder / "SHA256SUMS", "a") as file:
        file.write(f"{digest}  {name}\n")
    with never_opened(folder, monkeypatch):
        report = verify_store(folder)
        assert any("SHA256SUMS" in problem for problem in report.problems)
        assert repair_store(folder).quarantined == []
        assert verify_store(folder).ok
    assert Store.open(folder).count == len(IDS)


def test_an_absolute_name_in_sha256sums_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(folder / "SHA256SUMS", "a") as file:
        file.write(f"{'0' * 64}  {folder.parent / VICTIM}\n")
    with never_opened(folder, monkeypatch):
        assert not verify_store(folder).ok
        assert repair_store(folder).quarantined == []


def test_the_names_of_a_store_are_known_by_their_patterns(folder: Path) -> None:
    for path in (folder / "features").iterdir():
        assert is_shard_name(path.stem)
    assert read_sums(folder)
    for name in read_sums(folder):
        assert is_table_file_name(name)
        assert table_file(folder, name).is_file()
    with pytest.raises(CorruptStore, match="not a file of the table"):
        table_file(folder, f"../{VICTIM}")


LINKS = (
    *("features", "records.lance", "quarantine", "card.json", "COMMITTED", "SHA256SUMS", "LEASE"),
    *("records.lance/_versions", "records.lance/data", "records.lance/_transactions"),
    *("records.lance/_indices", "records.lance/_deletions"),
    *(
        "records.lance/_versions/*.manifest",
        "records.lance/data/*.lance",
        "cards",
        "artifacts",
        "cards/*.json",
    ),
)


def delete_one(folder: Path) -> None:
    store = Store.open(folder)
    with store.lease():
        store.delete([IDS[0]])


def compact(folder: Path) -> None:
    Store.open(folder).compact(keep_versions_s=0)


def take_lease_and_commit(folder: Path) -> None:
    store = Store.create(folder, make_card())
    with store.lease():
        store.commit(make_rows(store, ["new"]))


VERBS: dict[str, Callable[[Path], object]] = {
    "open": Store.open,
    "index": take_lease_and_commit,
    "delete": delete_one,
    "compact": compact,
    "verify": verify_store,
    "repair": repair_store,
    "serve": lambda folder: IndexPartition(str(folder)),
}


def moved_outside(folder: Path, name: str) -> Path:
    """Move a file or folder of the store to the victim's folder, make one up if it is missing."""
    [path] = sorted(folder.glob(name))[:1] or [folder / name]
    target = folder.parent / "victim" / path.name
    if path.exists():
        path.rename(target)
    elif name == "LEASE":
        target.write_bytes(b"")
    else:
        target.mkdir()
        (target / "file").write_text("outside")
    return path


@pytest.mark.parametrize("name", LINKS)
def test_links_in_a_store_are_refused_by_every_verb(folder: Path, name: str) -> None:
    path = moved_outside(folder, name)
    path.symlink_to(folder.parent / "victim" / path.name)
    before = outside(folder)
    for verb, run in VERBS.items():
        with pytest.raises(CorruptStore, match="is a link"):
            run(folder)
        assert outside(folder) == before, verb
        assert path.is_symlink(), verb


@pytest.mark.parametrize("name", LINKS)
def test_links_that_lead_nowhere_are_refused_too(folder: Path, name: str) -> None:
    path = moved_outside(folder, name)
    path.symlink_to(folder.parent / "nowhere")
    for run in VERBS.values():
        with pytest.raises(CorruptStore, match="is a link"):
            run(folder)
    assert not (folder.parent / "nowhere").exists()


@pytest.mark.parametrize("name", ["card.json", "COMMITTED", "SHA256SUMS", "LEASE"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_files_of_another_kind_are_refused_without_waiting(
    folder: Path, name: str, make: Callable[[Path], None]
) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    for run in VERBS.values():
        with pytest.raises(StoreError):
            run(folder)


@pytest.mark.parametrize("name", ["features", "quarantine", "records.lance", "cards", "artifacts"])
def test_files_in_place_of_folders_are_refused(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).write_text("a file")
    for run in VERBS.values():
        with pytest.raises(CorruptStore, match="is not a folder"):
            run(folder)


def test_the_lease_of_a_link_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "LEASE").symlink_to(tmp_path / "secret")
    with pytest.raises((OSError, StoreError)), Lease(tmp_path):
        pass
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_link_to_the_whole_store_is_the_users_own_and_works(folder: Path) -> None:
    (folder.parent / "shortcut").symlink_to(folder)
    take_lease_and_commit(folder.parent / "shortcut")
    assert verify_store(folder).ok


def test_compaction_removes_only_names_of_its_own(folder: Path) -> None:
    names = ("notes.parquet", "photo.tmp", "backup.parquet.tmp", f"{SHARD}.parquet.bak", ".keep")
    for name in names:
        (folder / "features" / name).write_text("a user's")
        os.utime(folder / "features" / name, (0, 0))
    (folder / "features" / f"{SHARD}.parquet").symlink_to(folder.parent / VICTIM)
    before = outside(folder)
    os.utime(folder / "features" / f"{SHARD}.parquet", (0, 0), follow_symlinks=False)
    removed = Store.open(folder).compact(keep_versions_s=0).files_removed
    assert set(removed) <= {f"{SHARD}.parquet"}  # the link itself, which no row uses
    assert outside(folder) == before
    assert all((folder / "features" / name).exists() for name in names)


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
    *(
        "preprocessing",
        "preprocessing.height",
        "preprocessing.resize",
        "preprocessing.mean",
    ),
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


def name_card(folder: Path, text: bytes | None, digest: str | None = None) -> str:
    """Let the newest version name a card of any text or digest, past every check; return the digest."""
    digest = digest or hashlib.sha256(text or b"").hexdigest()
    if text is not None:
        (folder / "cards" / f"{digest}.json").write_bytes(text)
    table = LanceTable.open(folder)
    table.name_card(digest)
    acknowledge(folder, table, known=set(read_sums(folder)))
    return digest


@pytest.mark.parametrize("data", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
def test_cards_of_versions_of_any_contents_are_refused_in_a_short_message(folder: Path, data: bytes) -> None:
    name_card(folder, data)
    for run in VERBS.values():
        if run is verify_store:
            assert not verify_store(folder).ok
            continue
        with pytest.raises(CorruptStore) as caught:
            run(folder)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "digest", [f"../../{VICTIM}", "", ".", "card", "\x1b[2J", "0" * 63, "A" * 64, "0" * 64, "0" * 10_000]
)
def test_cards_of_any_name_lead_nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    name_card(folder, None, digest or " ")
    with never_opened(folder, monkeypatch):
        for run in VERBS.values():
            if run is verify_store:
                assert not verify_store(folder).ok
                continue
            with pytest.raises(CorruptStore) as caught:
                run(folder)
            assert len(str(caught.value)) < 600


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


def test_cards_and_artifacts_of_a_gigabyte_are_not_read(folder: Path) -> None:
    card = make_card().stored_as("float16", aggregation_sha256="0" * 64)
    digest = name_card(folder, card.to_json().encode())
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / ("0" * 64)).touch()
    os.truncate(folder / "artifacts" / ("0" * 64), 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        Store.open(folder).artifact("0" * 64)
    assert "larger than" in " ".join(verify_store(folder).damaged_artifacts)
    os.truncate(folder / "cards" / f"{digest}.json", 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        Store.open(folder)


def test_artifacts_that_are_links_are_not_read(folder: Path) -> None:
    victim = (folder.parent / VICTIM).read_bytes()
    digest = hashlib.sha256(victim).hexdigest()
    store = Store.open(folder)
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / digest).symlink_to(folder.parent / VICTIM)
    with pytest.raises(CorruptStore, match="is a link"):
        store.artifact(digest)
    for run in VERBS.values():
        with pytest.raises(CorruptStore, match="is a link"):
            run(folder)
    for name in (f"../../{VICTIM}", str(folder.parent / VICTIM)):
        with pytest.raises(CorruptStore, match="not a SHA-256"):
            store.artifact(name)


@pytest.mark.parametrize(("column", "size"), [("source", 1 << 20), ("tags", 1 << 24)])
def test_rows_of_overlong_texts_are_damaged_whatever_their_checksum(
    folder: Path, column: str, size: int
) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    write_foreign_rows(folder, rows.append_column(column, pa.array(["x" * size], pa.string())))
    assert Store.open(folder).get(["evil"]) == []
    assert repair_store(folder).removed == ["evil"]
    assert verify_store(folder).ok


@pytest.mark.parametrize("name", ["card.json", "COMMITTED", "SHA256SUMS"])
def test_files_of_a_gigabyte_are_not_read(folder: Path, name: str) -> None:
    os.truncate(folder / name, 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        raise CorruptStore(" ".join(verify_store(folder).problems))
    if name != "card.json":
        assert any(entry.endswith(f"-{name}") for entry in repair_store(folder).quarantined)
        assert verify_store(folder).ok


def test_a_projection_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    (tmp_path / f"projection-{'0' * 16}.f32").touch()
    os.truncate(tmp_path / f"projection-{'0' * 16}.f32", 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        read_projection(tmp_path, "0" * 64, shape=(4, 2))


def test_a_projection_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    data = b"\x00" * 32
    (tmp_path / "secret").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / f"projection-{digest[:16]}.f32").symlink_to("secret")
    with pytest.raises(CorruptStore, match="is a link"):
        read_projection(tmp_path, digest, shape=(4, 2))


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


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([("image_id", pa.string())]),
        pa.schema([("number", pa.int64())]),
        pa.schema([("image_id", pa.int64()), ("shard", pa.binary())]),
    ],
    ids=["keys only", "other columns", "other types"],
)
def test_a_table_of_other_columns_is_refused(folder: Path, schema: pa.Schema) -> None:
    database = lancedb.connect(os.fspath(folder))
    table = database.create_table("records", schema=schema, mode="overwrite")
    acknowledge(folder, LanceTable(folder, table), known=set(read_sums(folder)))
    for run in (Store.open, delete_one, compact, repair_store):
        with pytest.raises(CorruptStore, match="column"):
            run(folder)
    assert not verify_store(folder).ok


@pytest.mark.parametrize(
    ("column", "kind"), [("source", pa.int64()), ("tags", pa.list_(pa.string())), ("code", pa.binary(3))]
)
def test_optional_columns_of_other_types_are_refused(folder: Path, column: str, kind: pa.DataType) -> None:
    table = LanceTable.open(folder)
    table.drop_columns([column])
    table.add_columns(pa.schema([pa.field(column, kind)]))
    acknowledge(folder, table, known=set(read_sums(folder)))
    for run in (Store.open, delete_one, compact, repair_store, VERBS["serve"]):
        with pytest.raises(CorruptStore, match=f"column {column}"):
            run(folder)
    assert not verify_store(folder).ok


def test_columns_of_other_names_are_left_alone(folder: Path) -> None:
    table = LanceTable.open(folder)
    table.add_columns(pa.schema([pa.field("theirs", pa.string())]))
    acknowledge(folder, table, known=set(read_sums(folder)))
    take_lease_and_commit(folder)
    assert "theirs" in LanceTable.open(folder).schema.names
    assert verify_store(folder).ok


@pytest.mark.slow
def test_a_footer_that_claims_gigabytes_is_not_read(folder: Path) -> None:
    [record] = Store.open(folder).get([IDS[0]])
    path = shard_path(folder, record.shard)
    with open(path, "r+b") as file:
        file.truncate(3 << 30)
        file.seek(-8, os.SEEK_END)
        file.write((2 << 30).to_bytes(4, "little") + b"PAR1")
    _, ok = FeatureReader(folder, make_card()).fetch([record])
    assert not ok[0]


def test_a_sound_store_answers_as_before(folder: Path) -> None:
    store = Store.open(folder)
    [candidates] = store.search(descriptor_of(IDS[3])[None], k=1)
    assert candidates[0].record.image_id == IDS[3]
    assert verify_store(folder).ok

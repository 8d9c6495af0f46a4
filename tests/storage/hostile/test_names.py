"""Names in a store are data: shards, files of the table, cards and artifacts lead nowhere outside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.ledger import read_sums
from storage.errors import CorruptStore
from storage.layout import is_shard_name, is_table_file_name, table_file
from storage.store import Store
from tests.support.hostile_stores import (
    IDS,
    SHARD,
    VICTIM,
    name_card,
    never_opened,
    outside,
    refused_by_every_verb,
    write_foreign_rows,
)
from tests.support.store_samples import descriptor_of, make_card, rows_of

FOREIGN_SHARDS = {
    "parent": f"../../{VICTIM}",
    "parent of a shard's own name": f"../../victim/{SHARD}",
    "below a shard's own name": f"{SHARD}/../../../{VICTIM}",
    "absolute": "{outside}/secret",
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
    name = name.format(outside=folder.parent / "victim")
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


FOREIGN_SUMS = {
    "parent": f"records.lance/_versions/../../../{VICTIM}",
    "parent of data": f"records.lance/data/../../../{VICTIM}",
    "plain parent": f"../{VICTIM}",
    "absolute": "{outside}/secret",
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
        file.write(f"{digest}  {name.format(outside=folder.parent / 'victim')}\n")
    with never_opened(folder, monkeypatch):
        report = verify_store(folder)
        assert any("SHA256SUMS" in problem for problem in report.problems)
        assert repair_store(folder).quarantined == []
        assert verify_store(folder).ok
    assert Store.open(folder).count == len(IDS)


def test_the_names_of_a_store_are_known_by_their_patterns(folder: Path) -> None:
    for path in (folder / "features").iterdir():
        assert is_shard_name(path.stem)
    assert read_sums(folder)
    for name in read_sums(folder):
        assert is_table_file_name(name)
        assert table_file(folder, name).is_file()
    with pytest.raises(CorruptStore, match="not a file of the table"):
        table_file(folder, f"../{VICTIM}")


@pytest.mark.parametrize(
    "digest", [f"../../{VICTIM}", "", ".", "card", "\x1b[2J", "0" * 63, "A" * 64, "0" * 64, "0" * 10_000]
)
def test_cards_of_any_name_lead_nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    name_card(folder, None, digest or " ")
    with never_opened(folder, monkeypatch):
        refused_by_every_verb(folder)


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


def test_a_sound_store_answers_as_before(folder: Path) -> None:
    store = Store.open(folder)
    [candidates] = store.search(descriptor_of(IDS[3])[None], k=1)
    assert candidates[0].record.image_id == IDS[3]
    assert verify_store(folder).ok

"""An upgrade adds columns without touching rows, and survives a kill at each of its steps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.care.repair import repair_store
from storage.care.upgrade import upgrade_store
from storage.care.verify import verify_store
from storage.commit.ledger import read_committed
from storage.errors import CorruptStore, InvalidBatch, StoreLocked
from storage.search.index_partition import IndexPartition
from storage.store import Store
from tests.support.paths import GOLDEN
from tests.support.store_samples import contents, descriptor_of, make_old_store, make_rows, make_store

IDS = [f"id{i:02d}" for i in range(30)]
QUERIES = np.stack([descriptor_of(image_id) for image_id in IDS])


def with_source(rows: pa.Table, source: str, tags: str | None = None) -> pa.Table:
    rows = rows.append_column("source", pa.array([source] * len(rows), pa.string()))
    return rows.append_column("tags", pa.array([tags] * len(rows), pa.string()))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.parent.name == "data"}


@pytest.mark.parametrize("name", ["store_v1_float16", "store_v2_int4_pca64"])
def test_an_upgrade_changes_neither_rows_nor_answers(tmp_path: Path, name: str) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    before, answers, files = contents(store), store.search(QUERIES, k=3), files_of(tmp_path / "s")
    report = upgrade_store(tmp_path / "s")
    assert (report.format_before, report.format, report.rows) == (int(name[7]), 3, 6)
    assert report.columns_added == ("source", "tags", "code")
    upgraded = Store.open(tmp_path / "s")
    assert upgraded.card == store.card.upgraded()
    assert upgraded.version == report.version > store.version
    assert contents(upgraded) == contents(store) == before
    assert upgraded.search(QUERIES, k=3) == answers
    assert files.items() <= files_of(tmp_path / "s").items()
    assert verify_store(tmp_path / "s").ok
    assert store.refresh()
    assert store.card.format_version == 3
    again = upgrade_store(tmp_path / "s")
    assert (again.columns_added, again.version) == ((), report.version)


def test_an_upgraded_store_takes_sources_and_an_older_one_refuses_them(tmp_path: Path) -> None:
    store = make_old_store(tmp_path, IDS)
    rows = with_source(make_rows(store, ["new"]), "/photos/new", '["north"]')
    with store.lease():
        with pytest.raises(InvalidBatch, match="source"):
            store.commit(rows)
        with pytest.raises(InvalidBatch, match="source"):
            store.amend(pa.table({"image_id": IDS[:1], "source": ["/photos"]}))
        assert store.upgrade()
        assert not store.upgrade()
        store.commit(rows)
        store.amend(pa.table({"image_id": IDS[:1], "source": ["/photos/old"], "tags": [None]}))
    [new, first, second] = store.get(["new", IDS[0], IDS[1]])
    assert (new.source, new.tags) == ("/photos/new", '["north"]')
    assert (first.source, first.tags) == ("/photos/old", None)
    assert (second.source, second.tags) == (None, None)
    assert store.verify().ok


def test_rows_from_before_take_their_source_from_their_uri(tmp_path: Path) -> None:
    old = make_old_store(tmp_path / "old", IDS[:2])
    assert set(old.metadata()["source"].to_pylist()) == {"file:///photos"}
    assert set(old.metadata()["tags"].to_pylist()) == {None}
    for source in ("file:///photos", "file:///photos/", "file://"):
        assert old.rows_of_source(source) == IDS[:2]
    for source in ("file:///phot", "file:///photos/id", "/photos"):
        assert old.rows_of_source(source) == []
    with old.lease():
        old.upgrade()
        old.commit(with_source(make_rows(old, [IDS[1], "c"]), "/photos/listing.csv"))
    assert sorted(old.rows_of_source("/photos/listing.csv")) == ["c", IDS[1]]
    assert old.rows_of_source("file:///photos") == IDS[:1]
    sources = dict(
        zip(old.metadata()["image_id"].to_pylist(), old.metadata()["source"].to_pylist(), strict=True)
    )
    assert sources == {IDS[0]: "file:///photos", IDS[1]: "/photos/listing.csv", "c": "/photos/listing.csv"}


def test_a_running_service_follows_an_upgrade(tmp_path: Path) -> None:
    store = make_old_store(tmp_path, IDS)
    part = IndexPartition(str(tmp_path))
    before = part.search(QUERIES, k=3)
    upgrade_store(tmp_path)
    assert part.refresh()
    assert [answer.hits for answer in part.search(QUERIES, k=3)] == [answer.hits for answer in before]
    assert part.card == store.card.upgraded()
    assert not part.refresh()


def test_an_upgrade_takes_the_lease(tmp_path: Path) -> None:
    store = make_old_store(tmp_path, IDS[:3])
    with store.lease(), pytest.raises(StoreLocked):
        upgrade_store(tmp_path)
    with pytest.raises(StoreLocked):
        store.upgrade()
    assert Store.open(tmp_path).card.format_version == 1


POINTS = ["after_card", "after_columns", "after_lance", "after_sync", "before_committed"]
UPGRADE = "import sys; from storage.care.upgrade import upgrade_store; upgrade_store(sys.argv[1])"


@pytest.mark.parametrize(
    ("point", "then"),
    [
        pytest.param("after_columns", "commit", marks=pytest.mark.integration),
        *(
            pytest.param(point, then, marks=pytest.mark.fault)
            for point in POINTS
            for then in ("upgrade", "commit", "repair")
        ),
    ],
)
def test_a_killed_upgrade_answers_and_is_completed_by_the_next_writer(
    tmp_path: Path, point: str, then: str
) -> None:
    old = make_old_store(tmp_path / "s", IDS[:6])
    before, answers = contents(old), old.search(QUERIES[:6], k=3)
    env = {**os.environ, "PLACERAY_FAULT_AT": point}
    child = subprocess.run([sys.executable, "-c", UPGRADE, str(tmp_path / "s")], env=env, check=False)
    assert child.returncode == -signal.SIGKILL
    store = Store.open(tmp_path / "s")
    assert store.search(QUERIES[:6], k=3) == answers
    assert contents(store) == before
    assert verify_store(tmp_path / "s").ok
    if then == "upgrade":
        assert upgrade_store(tmp_path / "s").format == 3
    elif then == "repair":
        repair_store(tmp_path / "s")
    with store.lease():
        store.commit(with_source(make_rows(store, ["new"]), "/photos"))
    store = Store.open(tmp_path / "s")
    assert store.get(["new"])[0].source == "/photos"
    assert {key: values for key, values in contents(store).items() if key != "new"} == before
    committed = read_committed(tmp_path / "s")
    assert committed is not None
    assert committed.card_sha256 == store.card.sha256
    assert verify_store(tmp_path / "s").ok


def test_committed_that_names_another_card_is_refused_and_repaired(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    text = (tmp_path / "COMMITTED").read_text()
    for changed in (
        text.replace(store.card.sha256, "0" * 64),
        text.replace(f'"card_sha256": "{store.card.sha256}", ', ""),
    ):
        assert changed != text
        (tmp_path / "COMMITTED").write_text(changed)
        with pytest.raises(CorruptStore):
            Store.open(tmp_path)
        assert not verify_store(tmp_path).ok
        repair_store(tmp_path)
        assert verify_store(tmp_path).ok
        assert Store.open(tmp_path).count == len(IDS)
        assert (tmp_path / "COMMITTED").read_text() == text

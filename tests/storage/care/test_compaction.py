"""Compaction keeps every row and every version that readers may use."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.errors import StoreLocked
from storage.features.shards import shard_path
from storage.layout import FEATURES_FOLDER
from storage.store import Store
from tests.support.store_samples import contents, make_rows, make_store

IDS = [f"id{i:02d}" for i in range(30)]


def test_compact_keeps_rows_and_young_versions_and_drops_old_ones(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS, batch=2)
    truth, reader = contents(store), Store.open(tmp_path)
    report = store.compact()
    assert (report.versions_removed, report.version) == (0, store.version)
    assert contents(reader) == contents(store) == truth
    report = store.compact(keep_versions_s=0.0)
    assert report.versions_removed >= 15
    assert contents(store) == contents(Store.open(tmp_path)) == truth
    assert store.verify().ok
    with store.lease():
        store.commit(make_rows(store, ["x"]))
    assert Store.open(tmp_path).verify().ok


def test_compact_removes_only_old_files_that_no_kept_version_needs(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    young = make_rows(store, ["young"])["shard"][0].as_py()
    orphan = make_rows(store, ["old"])["shard"][0].as_py()
    temporary = tmp_path / FEATURES_FOLDER / ".abc.tmp"
    temporary.write_bytes(b"half")
    with store.lease():
        store.delete(IDS[:10])  # its shard is still named by versions that readers may be pinned to
    long_ago = time.time() - 10**6
    for path in (tmp_path / FEATURES_FOLDER).iterdir():
        if path.name != f"{young}.parquet":
            os.utime(path, (long_ago, long_ago))
    report = store.compact()
    assert sorted(report.files_removed) == sorted([f"{orphan}.parquet", ".abc.tmp"])
    assert report.bytes_freed > 0
    assert (store.verify().orphan_shards[-1:], store.verify().ok) != ([], False)
    assert shard_path(tmp_path, young).exists()
    assert len(list((tmp_path / FEATURES_FOLDER).iterdir())) == 4
    assert len(contents(store)) == 20


def test_compact_rewrites_shards_more_than_half_dead(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        store.delete([*IDS[:6], *IDS[10:15]])
    truth = contents(store)
    untouched = {r.shard for r in store.get(IDS[15:])}
    assert store.compact().shards_rewritten == 1
    assert contents(store) == truth
    assert untouched < {r.shard for r in store.get(IDS)}
    assert store.get(IDS[6:7])[0].row == 0
    assert store.verify().ok
    assert store.compact().shards_rewritten == 0


def test_leftovers_are_named_with_their_size_and_their_time(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    assert (store.info()["leftover_bytes"], store.info()["leftovers"]) == (0, "none")
    orphan = shard_path(tmp_path, make_rows(store, ["stopped"])["shard"][0].as_py())
    size = orphan.stat().st_size
    info, verified = store.info(), store.verify()
    assert (info["leftover_files"], info["leftover_bytes"], verified.leftover_bytes) == (1, size, size)
    assert 590 < info["leftover_removable_in_s"] <= 600
    assert info["leftovers"] == "0.0 MB in 1 file that no row uses; removable in 10 min"
    report = store.compact()
    assert (report.files_removed, report.leftover_bytes, orphan.exists()) == ((), size, True)
    preview = store.preview_compaction(min_age_s=0.0)
    assert (preview.files_to_remove, preview.bytes_to_free) == ((orphan.name,), size)
    assert orphan.exists()
    report = store.compact(min_age_s=0.0)
    assert (report.files_removed, report.bytes_freed, report.leftovers) == ((orphan.name,), size, "none")


def test_leftovers_of_a_stopped_run_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    young, old = (shard_path(tmp_path, make_rows(store, [one])["shard"][0].as_py()) for one in ("a", "b"))
    size = old.stat().st_size
    used = shard_path(tmp_path, store.get(IDS[:1])[0].shard)
    long_ago = time.time() - 3600
    for path in (old, used):
        os.utime(path, (long_ago, long_ago))
    with pytest.raises(StoreLocked):
        store.remove_leftovers()
    with store.lease():
        assert store.remove_leftovers() == size
    assert (young.exists(), old.exists(), used.exists()) == (True, False, True)
    assert store.verify().ok


def orphans(store: Store, folder: Path, *ages_s: float) -> list[Path]:
    """Write a shard for each age that no row uses."""
    paths = []
    for age_s in ages_s:
        paths.append(shard_path(folder, make_rows(store, [f"orphan{age_s}"])["shard"][0].as_py()))
        os.utime(paths[-1], (time.time() - age_s,) * 2)
    return paths


def leave_lease(folder: Path, *, since_s: float, beat_s: float) -> None:
    """Leave the lease as a writer does that took it so long ago and was killed."""
    since = datetime.fromtimestamp(time.time() - since_s, UTC).isoformat(timespec="seconds")
    holder = {"pid": 77, "host": "elsewhere", "since": since, "token": "x", "beat": time.time() - beat_s}
    (folder / "LEASE").write_text(json.dumps(holder))


def test_what_a_killed_writer_left_goes_at_once_with_the_next(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    before, left = orphans(store, tmp_path, 120, 5)
    leave_lease(tmp_path, since_s=60, beat_s=5)  # it may be alive
    assert store.info()["leftovers"] == "0.0 MB in 2 files that no row uses; removable in 10 min"
    leave_lease(tmp_path, since_s=60, beat_s=20)
    preview = store.preview_compaction()
    assert preview.files_to_remove == (left.name,)
    assert preview.leftovers.startswith(
        "0.0 MB in 2 files that no row uses; compact or the next index removes 0.0 MB now"
    )
    with store.lease():
        assert store.remove_leftovers() > 0
    assert (before.exists(), left.exists()) == (True, False)
    (left,) = orphans(store, tmp_path, 5)
    leave_lease(tmp_path, since_s=60, beat_s=20)
    assert store.compact().files_removed == (left.name,)
    assert store.verify().ok


def test_a_run_removes_what_it_wrote_and_did_not_commit(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    (before,) = orphans(store, tmp_path, 120)
    with store.lease():
        (own,) = orphans(store, tmp_path, 0)
        assert store.remove_leftovers() == 0
        assert store.remove_leftovers(own=True) > 0
    assert (before.exists(), own.exists()) == (True, False)
    assert store.verify().ok


@pytest.mark.parametrize("since", ["", "yesterday", 7, None, "9999-99-99"])
def test_a_lease_of_no_known_time_leaves_what_is_young(tmp_path: Path, since: object) -> None:
    store = make_store(tmp_path, IDS)
    orphans(store, tmp_path, 5)
    (tmp_path / "LEASE").write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": since, "beat": 1.0}))
    assert store.info()["leftovers"].endswith("removable in 10 min")
    with store.lease():
        assert store.remove_leftovers() == 0

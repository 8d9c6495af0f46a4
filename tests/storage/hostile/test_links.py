"""Links and special files in place of the store's own files and folders are refused by every verb."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.lease import Lease
from storage.errors import CorruptStore, StoreError
from storage.features.projection import read_projection
from storage.features.shards import shard_path
from storage.store import Store
from tests.support.hostile_stores import IDS, VERBS, VICTIM, never_opened, outside, take_lease_and_commit

LINKS = (
    *("features", "records.lance", "quarantine", "card.json", "COMMITTED", "SHA256SUMS", "LEASE"),
    *("calibration.json", "rejected.csv", "notes.csv"),
    *("records.lance/_versions", "records.lance/data", "records.lance/_transactions"),
    *("records.lance/_indices", "records.lance/_deletions", "records.lance/_refs"),
    *(
        "records.lance/_versions/*.manifest",
        "records.lance/_versions/latest_version_hint.json",
        "records.lance/_transactions/*.txn",
        "records.lance/data/*.lance",
        "cards",
        "artifacts",
        "cards/*.json",
    ),
)


def moved_outside(folder: Path, name: str) -> Path:
    """Move a file or folder of the store to the victim's folder, make one up if it is missing."""
    [path] = sorted(folder.glob(name))[:1] or [folder / name]
    target = folder.parent / "victim" / path.name
    if path.exists():
        path.rename(target)
    elif "." in path.name or name == "LEASE":
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


def test_a_projection_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    data = b"\x00" * 32
    (tmp_path / "secret").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / f"projection-{digest[:16]}.f32").symlink_to("secret")
    with pytest.raises(CorruptStore, match="is a link"):
        read_projection(tmp_path, digest, shape=(4, 2))


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

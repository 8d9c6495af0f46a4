"""A store that cannot be written: readers work, writers say so; a full disk keeps what was committed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.durable import explain_write_errors, replace_file
from storage.errors import NotWritable, OutOfSpace
from storage.features.shards import write_shard
from storage.search import snapshot
from storage.search.index_partition import IndexPartition
from storage.store import Store
from tests.support.mounts import fill_disk, mounted, read_only
from tests.support.paths import ROOT
from tests.support.store_samples import descriptor_of, encoded, features_of, make_card, make_rows, make_store

IDS = [f"id{i:02d}" for i in range(30)]


def delete(folder: Path) -> None:
    store = Store.open(folder)
    with store.lease():
        store.delete(IDS[:2])


def compact(folder: Path) -> None:
    Store.open(folder).compact()


def index(folder: Path) -> None:
    store = Store.create(folder, make_card())
    with store.lease():
        store.commit(make_rows(store, ["new"]))


def build_index(folder: Path) -> None:
    Store.open(folder).build_index(min_rows=1)


def shard(folder: Path) -> None:
    write_shard(os.fspath(folder), ["new"], encoded(Store.open(folder), features_of("new")[None]))


WRITERS: tuple[Callable[[Path], object], ...] = (delete, compact, build_index, index, shard, repair_store)


def test_writers_say_that_a_store_is_read_only_and_readers_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "made", IDS)
    monkeypatch.setattr(snapshot, "LANCE_INDEX_ROWS", 1)
    with read_only(tmp_path / "made", tmp_path / "mounted") as folder:
        for write in WRITERS:
            with pytest.raises(NotWritable, match=r"Read-only file system.*: give"):
                write(folder)
        with pytest.raises(NotWritable):
            Store.create(folder.parent / "other", make_card())
        store = Store.open(folder)
        for method in ("exact", "lance"):  # the second lacks its index, and says so
            [hits] = store.search(descriptor_of(IDS[3])[None], k=1, method=method)
            assert hits[0].record.image_id == IDS[3]
        assert store.fetch([hits[0].record])[1].all()
        assert verify_store(folder).ok
        assert IndexPartition(str(folder), method="lance").snapshot.count == len(IDS)
        assert store.info()["rows"] == len(IDS)


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from tests.storage.test_unwritable_store import WRITERS, IDS
from storage.errors import NotReadable, NotWritable
from storage.store import Store
import storage.search.snapshot, numpy
folder = Path(sys.argv[1])
expected = NotWritable if sys.argv[2] == "readable" else NotReadable
os.setgid(65534); os.setuid(65534)
for write in WRITERS:
    try:
        write(folder)
    except expected as error:
        assert "Permission denied" in str(error), error
    else:
        sys.exit(f"{write.__name__} wrote")
if expected is NotWritable:
    assert Store.open(folder).count == len(IDS)
print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", ["readable", pytest.param("unreadable", marks=pytest.mark.long)])
def test_a_folder_of_another_user_is_refused_in_every_writer(mode: str) -> None:
    with tempfile.TemporaryDirectory() as parent:  # not below pytest's own folder, which is root's alone
        folder = Path(parent, "store")
        make_store(folder, IDS)
        for path in (Path(parent), folder, *folder.rglob("*")):
            path.chmod((0o755 if path.is_dir() else 0o644) if mode == "readable" else 0o700)
        command = [sys.executable, "-c", AS_ANOTHER_USER, os.fspath(folder), mode]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == "done\n", ended.stderr


def test_a_full_disk_ends_every_writer_and_loses_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "made", IDS)
    (tmp_path / "full").mkdir()
    with mounted(tmp_path / "full", "size=2m"):
        folder = tmp_path / "full" / "store"
        shutil.copytree(tmp_path / "made", folder)
        filler = fill_disk(folder.parent)
        for write in (delete, compact, index, shard):
            with pytest.raises(OutOfSpace, match="no space left"):
                write(folder)
        assert Store.open(folder).count == len(IDS)
        filler.unlink()
        delete(folder)
        assert verify_store(folder).ok
        assert Store.open(folder).count == len(IDS) - 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EROFS, "Read-only file system"), NotWritable),
        (PermissionError(errno.EACCES, "Permission denied"), NotWritable),
        (PermissionError(errno.EPERM, "Operation not permitted"), NotWritable),
        (OSError("LanceError(IO): Read-only file system (os error 30)"), NotWritable),
        (RuntimeError("Permission denied (os error 13), /lance.rs:10"), NotWritable),
        (OSError(errno.ENOSPC, "No space left on device"), OutOfSpace),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), OutOfSpace),
        (RuntimeError("IO error: No space left on device (os error 28)"), OutOfSpace),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (RuntimeError("os error 130"), RuntimeError),
    ],
)
def test_errors_of_the_system_are_told_apart_however_they_are_worded(
    tmp_path: Path, error: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected), explain_write_errors(tmp_path / "file", 10):
        raise error


def test_replacing_a_file_writes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("victim")
    (tmp_path / "file").symlink_to("victim")
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "victim").read_text() == "victim"
    assert not (tmp_path / "file").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "victim"]


def test_files_of_a_store_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        make_store(tmp_path / "store", IDS[:2])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").rglob("*")}
    assert {name for name, mode in modes.items() if mode & 0o007} == set()
    assert modes["LEASE"] == modes["COMMITTED"] == modes["card.json"] == 0o640

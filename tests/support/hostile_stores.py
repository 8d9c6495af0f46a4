"""Stores as somebody would make them who has read the format, and what every verb does with one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.ledger import acknowledge, read_committed, read_sums
from storage.errors import CorruptStore
from storage.search.index_partition import IndexPartition
from storage.store import Store
from storage.table.checksums import add_checksums
from storage.table.lance_table import LanceTable, manifest_name
from tests.support.store_samples import make_card, make_rows

IDS = [f"id{i:02d}" for i in range(30)]
SHARD = "0123456789abcdef" * 2 + "-01234567"
# Where the victim lies, seen from features/, from records.lance/_versions/ and from the store's folder.
VICTIM = "victim/secret"


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


def name_card(folder: Path, text: bytes | None, digest: str | None = None) -> str:
    """Let the newest version name a card of any text or digest, past every check; return the digest."""
    digest = digest or hashlib.sha256(text or b"").hexdigest()
    if text is not None:
        (folder / "cards" / f"{digest}.json").write_bytes(text)
    table = LanceTable.open(folder)
    table.name_card(digest)
    acknowledge(folder, table, known=set(read_sums(folder)))
    return digest


def name_outside_files(folder: Path, outside: str) -> None:
    """Let every version of the table look for files in another place, as a shallow clone does."""
    versions = folder / "records.lance/_versions"
    for path in versions.glob("*.manifest"):
        path.write_bytes(with_base_path(path.read_bytes(), outside.encode()))
    committed = read_committed(folder)
    assert committed is not None
    manifest = versions / manifest_name(committed.version)
    values = {name: value for name, value in vars(committed).items() if value is not None}
    values["manifest_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    (folder / "COMMITTED").write_text(json.dumps(values))
    sums = (
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in read_sums(folder)
    )
    (folder / "SHA256SUMS").write_text("".join(f"{line}\n" for line in sums))


def with_base_path(manifest: bytes, path: bytes) -> bytes:
    """Return a manifest of Lance whose message names a further place of files (field 18, base_paths)."""
    at = int.from_bytes(manifest[-16:-8], "little")
    start, end = at + 4, at + 4 + int.from_bytes(manifest[at : at + 4], "little")
    base = b"\x08\x01\x18\x01\x22" + bytes([len(path)]) + path
    message = manifest[start:end] + b"\x92\x01" + bytes([len(base)]) + base
    return manifest[:at] + len(message).to_bytes(4, "little") + message + manifest[end:]


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


def refused_by_every_verb(folder: Path) -> None:
    """Check that every verb refuses a store in a short message; `verify` may report it instead."""
    for verb, run in VERBS.items():
        if verb == "verify":
            with contextlib.suppress(CorruptStore):
                assert not verify_store(folder).ok
            continue
        with pytest.raises(CorruptStore) as caught:
            run(folder)
        assert len(str(caught.value)) < 600, verb

"""Copying one committed version of a store, between folders and buckets, while a writer may be at work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from isal.isal_zlib import crc32

from storage.card import Card
from storage.card_files import first_card
from storage.care.leftovers import used_shards
from storage.commit.bucket_sums import add_sums
from storage.commit.current_card import card_of
from storage.commit.leases import open_lease
from storage.commit.ledger import Committed, check_manifests, read_committed, read_sums
from storage.commit.version_tags import read_tags, write_tag
from storage.durable import explain_write_errors
from storage.errors import CorruptStore, InvalidBatch, StoreNotFound, repair_command
from storage.layout import (
    ARTIFACTS_FOLDER,
    CALIBRATION_FILE,
    CARD_FILE,
    CARDS_FOLDER,
    FEATURES_FOLDER,
    OWN_PHOTOS_FILE,
    TABLE_FOLDER,
    check_layout,
    shard_file_name,
)
from storage.objects.files import Location, exists
from storage.objects.location import objects_of, open_location
from storage.objects.probe import require_conditions
from storage.objects.protocol import ObjectStore
from storage.table.open_table import open_table
from storage.table.version_files import version_file_names

__all__ = ["CopyReport", "copy_store"]

_MAX_FILE_BYTES = 1 << 40
_BESIDE = (CALIBRATION_FILE, OWN_PHOTOS_FILE)  # of a store, whatever its version


@dataclass(frozen=True)
class CopyReport:
    """The result of a copy.

    Attributes:
        version: The version that was copied; it has the same number in the copy.
        rows: How many rows it has.
        files: Number of files of the copy.
        files_copied: How many of them were written by this run; the others were there already, intact.
        bytes_copied: Their size.
        tags: Tags of the version, which the copy has too.
    """

    version: int
    rows: int
    files: int
    files_copied: int
    bytes_copied: int
    tags: tuple[str, ...] = ()


def copy_store(
    source: str | Location, target: str | Location, *, progress: Callable[[int, int], None] | None = None
) -> CopyReport:
    """Copy the committed version of a store; running it again continues an interrupted copy.

    Every file is compared with its digest as it is read; what lies at the target counts only if it is the
    same. COMMITTED is written last: until then the target is no store.

    Args:
        source: Where the store is.
        target: A folder or a prefix of a bucket without a store, or with an unfinished or finished copy.
        progress: Called with the number of finished files and of all.

    Raises:
        StoreNotFound: there is no store at `source`.
        InvalidBatch: there is another store at `target`.
        StoreLocked: another writer holds the lease of the target.
        CorruptStore: a file of the source is damaged, or went while it was copied.
        OutOfSpace, NotWritable: the target cannot be written.
    """
    origin, goal = open_location(source), open_location(target)
    first = first_card(origin)
    committed = read_committed(origin)
    if committed is None:
        raise StoreNotFound(f"{origin}: creating this store was interrupted: run placeray index again")
    check_manifests(origin, committed)
    card = card_of(origin, committed.card_sha256, first)
    check_layout(goal)
    if isinstance(goal, Path):
        with explain_write_errors(goal, 0):
            (goal / FEATURES_FOLDER).mkdir(parents=True, exist_ok=True)
    else:
        require_conditions(goal.objects)
    with open_lease(goal) as lease:
        _require_free(goal, committed)
        plan = _Plan.of(origin, committed, card, first)
        done = copied = copied_bytes = 0
        for size in plan.copy(objects_of(origin), objects_of(goal)):
            done, copied, copied_bytes = done + 1, copied + (size > 0), copied_bytes + size
            if progress is not None:
                progress(done, len(plan.files))
        _finish(goal, committed, plan)
        tags = tuple(name for name, version in read_tags(origin).items() if version == committed.version)
        for name in tags:
            write_tag(goal, name, committed.version, lease)
    return CopyReport(committed.version, committed.rows, len(plan.files), copied, copied_bytes, tags)


@dataclass(frozen=True)
class _Plan:
    """What to copy.

    Attributes:
        files: How each file is known to be intact, by name: a digest, a CRC-32 in its name, or not at all.
        sums: The recorded digests of the table's files.
    """

    origin: Location
    files: dict[str, str]
    sums: dict[str, str]

    @classmethod
    def of(cls, origin: Location, committed: Committed, card: Card, first: Card) -> _Plan:
        table = open_table(origin, version=committed.version)
        recorded = read_sums(origin)
        names = version_file_names(origin, committed.version)
        sums = {name: recorded[name] for name in names if name in recorded}
        files = {f"{FEATURES_FOLDER}/{shard_file_name(shard)}": "" for shard in sorted(used_shards(table))}
        for each in (card, first):
            if each.projection_sha256 is not None:
                files[f"projection-{each.projection_sha256[:16]}.f32"] = each.projection_sha256
            for digest in each.artifacts:
                files[f"{ARTIFACTS_FOLDER}/{digest}"] = digest
            if each.format_version >= 3:
                files[f"{CARDS_FOLDER}/{each.sha256}.json"] = each.sha256
        files |= {name: sums.get(name, "") for name in sorted(names)}
        # Lance looks up what the newest version changed before it commits the next.
        start = f"{TABLE_FOLDER}/_transactions/{committed.version - 1}-"
        listed = objects_of(origin).list(f"{TABLE_FOLDER}/_transactions")
        files |= {each.name: "" for each in listed if each.name.startswith(start)}
        present = [name for name in _BESIDE if exists(origin / name)]
        files |= dict.fromkeys([CARD_FILE, *present], "")
        return cls(origin, files, sums)

    def copy(self, origin: ObjectStore, goal: ObjectStore) -> Iterator[int]:
        """Copy what is not there yet; yield for each file how many bytes were written."""
        there = {each.name: each.size for each in goal.list()}
        for name, digest in self.files.items():
            if name in there and self._is_intact(name, digest, goal):
                yield 0
                continue
            try:
                data = origin.get(name, _MAX_FILE_BYTES).data
            except FileNotFoundError:
                raise CorruptStore(
                    f"{origin.shown}/{name} is missing: if the store was compacted meanwhile, run the same "
                    f"command again, else {repair_command(self.origin)}"
                ) from None
            if not _matches(name, digest, data):
                raise CorruptStore(f"{origin.shown}/{name} is damaged: {repair_command(self.origin)}")
            goal.put(name, data)
            yield len(data)

    def _is_intact(self, name: str, digest: str, goal: ObjectStore) -> bool:
        if not digest and not name.startswith(f"{FEATURES_FOLDER}/"):
            return False  # small, and nothing to compare it with
        return _matches(name, digest, goal.get(name, _MAX_FILE_BYTES).data)


def _matches(name: str, digest: str, data: bytes) -> bool:
    if name.startswith(f"{FEATURES_FOLDER}/"):
        return name.endswith(f"-{crc32(data):08x}.parquet")
    return not digest or hashlib.sha256(data).hexdigest() == digest


def _require_free(goal: Location, committed: Committed) -> None:
    """Refuse a target that holds another store, or another version of this one."""
    there = read_committed(goal)
    if there is not None and there != committed:
        raise InvalidBatch(
            f"{goal} holds a store already (version {there.version}, {there.rows} rows): give a place "
            "without one"
        )


def _finish(goal: Location, committed: Committed, plan: _Plan) -> None:
    """Record the digests, then let COMMITTED make the copy a store."""
    if read_committed(goal) is not None:
        return
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(plan.sums.items()))
    if isinstance(goal, Path):
        objects_of(goal).put("SHA256SUMS", lines.encode())
    else:
        add_sums(goal, committed.version, lines)
    objects_of(goal).put_if_absent("COMMITTED", committed.to_json().encode())

"""Descriptors are replaced as one version: killed at any step, continued, followed by readers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.artifacts import digests_in
from storage.card import Card
from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.ledger import manifests, read_committed
from storage.errors import CardMismatch, CorruptStore, InvalidBatch, StoreLocked
from storage.search.index_partition import IndexPartition, VersionNotLoaded
from storage.store import Store
from storage.table.checksums import add_checksums
from storage.table.lance_table import LanceTable
from tests.support.store_samples import (
    contents,
    copied_store,
    descriptor_of,
    make_card,
    make_old_store,
    make_rows,
    make_store,
)

IDS = [f"id{i:02d}" for i in range(30)]
WIDTH = 24
WORDS = [b"words, first lesson", b"words, second lesson"]
CARDS = [
    make_card().stored_as(
        "float16", aggregation_sha256=hashlib.sha256(words).hexdigest(), descriptor_dim=WIDTH
    )
    for words in WORDS
]
POINTS = [
    *("after_begin", "after_descriptors:1", "after_descriptors:3", "after_switch"),
    *("after_lance", "after_sync", "before_committed", "after_committed"),
]


def described(
    ids: Sequence[str], lesson: int = 0, *, size: int = 8
) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    for at in range(0, len(ids), size):
        chunk = ids[at : at + size]
        yield chunk, np.stack([descriptor_of(key, 100 + lesson, dim=WIDTH) for key in chunk])


def relearn(store: Store, lesson: int = 0) -> int:
    with store.lease():
        ids = store.rows_to_describe(CARDS[lesson])
        return store.replace_descriptors(CARDS[lesson], described(ids, lesson), artifacts=[WORDS[lesson]])


def nearest(store: Store | IndexPartition, ids: Sequence[str], lesson: int | None) -> list[str]:
    """Return the first hit of each image's own descriptor, as made before (None) or in a lesson."""
    dim, generation = (16, 0) if lesson is None else (WIDTH, 100 + lesson)
    queries = np.stack([descriptor_of(key, generation, dim=dim) for key in ids])
    if isinstance(store, IndexPartition):
        return [answer.hits[0].record.image_id for answer in store.search(queries, k=1)]
    return [hits[0].record.image_id for hits in store.search(queries, k=1)]


def columns(folder: Path) -> list[str]:
    return LanceTable.open(folder).schema.names


@pytest.mark.parametrize("make", [make_store, make_old_store])
def test_descriptors_of_another_width_replace_the_old_ones_and_nothing_else(
    tmp_path: Path, make: type
) -> None:
    store = make(tmp_path, IDS)
    reader, before, version = Store.open(tmp_path), contents(store), store.version
    names = sorted({*columns(tmp_path), "source", "tags", "code"})
    assert relearn(store) == store.version > version
    assert store.card == CARDS[0]
    assert nearest(store, IDS, 0) == IDS
    assert contents(store) == before
    assert nearest(reader, IDS, None) == IDS
    assert reader.refresh()
    assert reader.card == CARDS[0]
    assert nearest(reader, IDS, 0) == nearest(Store.open(tmp_path), IDS, 0) == IDS
    with pytest.raises(InvalidBatch, match="width 24"):
        store.search(descriptor_of(IDS[0])[None], k=1)
    assert sorted(columns(tmp_path)) == names
    assert store.artifact(CARDS[0].artifacts[0]) == WORDS[0]
    assert verify_store(tmp_path).ok
    committed = read_committed(tmp_path)
    assert committed is not None
    assert committed.card_sha256 == CARDS[0].sha256 == LanceTable.open(tmp_path).card_sha256


def test_a_store_grows_shrinks_and_relearns_after_it_relearned(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    relearn(store)
    with store.lease():
        store.commit(make_rows(store, ["new", IDS[0]], 100))
        store.amend(pa.table({"image_id": ["new"], "lat": [5.0]}))
        store.delete([IDS[1]])
    assert relearn(store, 1) == store.version
    ids = ["new", IDS[0], *IDS[2:]]
    assert nearest(store, ids, 1) == ids
    assert relearn(store, 1) == store.version  # nothing to do
    store.compact(keep_versions_s=0)
    assert nearest(Store.open(tmp_path), ids, 1) == ids
    assert verify_store(tmp_path).ok
    assert relearn(store, 0) == store.version
    assert nearest(Store.open(tmp_path), ids, 0) == ids


def test_an_empty_store_takes_another_card(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    relearn(store)
    with store.lease():
        store.commit(make_rows(store, IDS, 100))
    assert nearest(store, IDS, 0) == IDS


def test_rows_without_a_descriptor_are_named_and_the_others_kept(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    with store.lease():
        with pytest.raises(InvalidBatch, match=r"10 rows have no new descriptor \(first: id20\)"):
            store.replace_descriptors(CARDS[0], described(IDS[:20]), artifacts=[WORDS[0]])
        assert store.rows_to_describe(CARDS[0]) == IDS[20:]
        assert sorted(store.rows_to_describe(CARDS[1])) == IDS
    assert nearest(Store.open(tmp_path), IDS, None) == IDS
    assert store.card == make_card().upgraded()
    with store.lease():
        assert store.rows_to_describe(CARDS[0]) == IDS[20:]
        store.replace_descriptors(CARDS[0], described(IDS[20:]))
    assert nearest(Store.open(tmp_path), IDS, 0) == IDS


def test_a_replacement_by_another_card_begins_anew(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    with store.lease(), pytest.raises(InvalidBatch, match="no new descriptor"):
        store.replace_descriptors(CARDS[0], described(IDS[:20]), artifacts=[WORDS[0]])
    relearn(store, 1)
    assert nearest(Store.open(tmp_path), IDS, 1) == IDS
    assert verify_store(tmp_path).ok


@pytest.mark.parametrize("change", ["commit", "amend"])
def test_rows_that_change_in_between_end_an_unfinished_replacement(tmp_path: Path, change: str) -> None:
    store = copied_store(tmp_path, IDS)
    with store.lease(), pytest.raises(InvalidBatch, match="no new descriptor"):
        store.replace_descriptors(CARDS[0], described(IDS[:20]), artifacts=[WORDS[0]])
    with store.lease():
        if change == "commit":
            store.commit(make_rows(store, ["new", IDS[0]], 1))
        else:
            store.amend(pa.table({"image_id": [IDS[0]], "lat": [5.0]}))
        assert sorted(store.rows_to_describe(CARDS[0])) == sorted(
            set(IDS) | set(store.metadata()["image_id"].to_pylist())
        )
    assert not [name for name in columns(tmp_path) if name.endswith("_next")]
    relearn(store)
    assert verify_store(tmp_path).ok


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["x"], np.eye(1, WIDTH), "x is not in the store"),
        ([IDS[0]], np.eye(1, 16), "width 24"),
        ([IDS[0], IDS[0]], np.eye(2, WIDTH), "for 1 images"),
        ([IDS[0]], np.full((1, WIDTH), np.nan), "id00"),
        ([IDS[0]], np.full((1, WIDTH), 7.0), "unit norm"),
    ],
)
def test_descriptors_that_do_not_fit_are_refused(
    tmp_path: Path, ids: list[str], vectors: np.ndarray, message: str
) -> None:
    store = copied_store(tmp_path, IDS[:3])
    with store.lease(), pytest.raises(InvalidBatch, match=message):
        store.replace_descriptors(CARDS[0], [(ids, vectors)], artifacts=[WORDS[0]])
    assert nearest(Store.open(tmp_path), IDS[:3], None) == IDS[:3]
    assert verify_store(tmp_path).ok


def test_cards_of_other_features_and_missing_artifacts_are_refused(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS[:3])
    others: list[tuple[Card, str]] = [
        (dataclasses.replace(CARDS[0], weights_sha256="1" * 64), "weights_sha256"),
        (dataclasses.replace(CARDS[0], feature_encoding="int8"), "feature_encoding"),
        (dataclasses.replace(CARDS[0], local_whitening_sha256="1" * 64), "local_whitening_sha256"),
    ]
    with store.lease():
        for card, name in others:
            with pytest.raises(CardMismatch, match=name):
                store.replace_descriptors(card, described(IDS[:3]), artifacts=[WORDS[0]])
        with pytest.raises(CorruptStore, match="missing"):
            store.replace_descriptors(CARDS[1], described(IDS[:3]))
    with pytest.raises(StoreLocked):
        store.replace_descriptors(CARDS[0], described(IDS[:3]))
    assert Store.open(tmp_path).version == store.version


def test_a_damaged_row_is_not_given_a_sound_checksum(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    table = LanceTable.open(tmp_path)
    rows = pa.table(
        {"image_id": [IDS[3]], "uri": ["changed"]},
        schema=pa.schema([table.schema.field("image_id"), table.schema.field("uri")]),
    )
    with store.lease():
        assert store._writer is not None
        store._writer.change(lambda: store._writer.table.update(rows))  # type: ignore[union-attr]
        with pytest.raises(CorruptStore, match="--repair"):
            store.replace_descriptors(CARDS[0], described(IDS), artifacts=[WORDS[0]])
    assert repair_store(tmp_path).removed == [IDS[3]]
    store = Store.open(tmp_path)
    relearn(store)
    assert store.count == len(IDS) - 1


@pytest.mark.parametrize("write", ["append", "upsert"])
def test_rows_of_a_writer_from_before_never_mix_with_the_new_descriptors(tmp_path: Path, write: str) -> None:
    """A writer that was suspended when it lost its lease writes descriptors of the former card."""
    store = copied_store(tmp_path, IDS)
    stale = LanceTable.open(tmp_path)
    ids = ["late"] if write == "append" else ["late", IDS[3]]
    rows = add_checksums(make_rows(store, ids), store.card)
    card = make_card().stored_as("float16", aggregation_sha256=CARDS[0].artifacts[0], descriptor_dim=16)
    vectors = np.stack([descriptor_of(key, 7) for key in IDS])
    with store.lease():
        store.replace_descriptors(card, [(IDS, vectors)], artifacts=[WORDS[0]])
    getattr(stale, write)(rows)
    assert stale.version > store.version
    with pytest.raises(CorruptStore, match="never acknowledged"), Store.open(tmp_path).lease():
        pass
    repair_store(tmp_path)
    store = Store.open(tmp_path)
    assert (store.card, store.count) == (card, len(IDS))
    hits = store.search(vectors, k=1)
    assert [row[0].record.image_id for row in hits] == IDS
    assert verify_store(tmp_path).ok


def test_a_running_service_follows_and_never_compares_across_aggregations(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    part = IndexPartition(str(tmp_path))
    old = part.snapshot.version
    relearn(store)
    assert nearest(part, IDS, None) == IDS
    assert part.refresh()
    assert part.card == CARDS[0]
    assert part.loaded_versions == (old, store.version)
    assert nearest(part, IDS, 0) == IDS
    relearn(store, 1)
    assert part.refresh()
    digests = [None, *(card.aggregation_sha256 for card in CARDS)]
    for lesson, digest in zip((None, 0, 1), digests, strict=True):
        dim, generation = (16, 0) if lesson is None else (WIDTH, 100 + lesson)
        query = descriptor_of(IDS[5], generation, dim=dim)[None]
        [answer] = part.search(query, k=1, aggregation_sha256=digest)
        assert answer.hits[0].record.image_id == IDS[5]
        assert answer.version == part.loaded_versions[digests.index(digest)]
    with pytest.raises(VersionNotLoaded, match="aggregation 000"):
        part.search(query, k=1, aggregation_sha256="0" * 64)
    with pytest.raises(VersionNotLoaded, match="aggregation"):
        part.search(query, k=1, version=part.loaded_versions[1], aggregation_sha256=digests[2])


def test_compaction_keeps_the_cards_and_artifacts_of_versions_that_can_be_read(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    first = store.card
    for lesson in (0, 1):
        relearn(store, lesson)
    with store.lease():
        store._folder.joinpath("cards", f".{'0' * 64}.json.7-01234567.tmp").write_text("half")
    for path in [*(tmp_path / "cards").iterdir(), *(tmp_path / "artifacts").iterdir()]:
        os.utime(path, (0, 0))
    removed = store.compact(keep_versions_s=3600).files_removed
    assert list(removed) == [f".{'0' * 64}.json.7-01234567.tmp"]
    assert len(digests_in(tmp_path / "cards", ".json")) == 3
    removed = store.compact(keep_versions_s=0).files_removed
    assert sorted(removed) == sorted([f"{CARDS[0].sha256}.json", CARDS[0].artifacts[0]])
    # That of card.json stays: versions that name none have it.
    assert digests_in(tmp_path / "cards", ".json") == sorted([first.sha256, CARDS[1].sha256])
    assert digests_in(tmp_path / "artifacts") == list(CARDS[1].artifacts)
    assert nearest(Store.open(tmp_path), IDS, 1) == IDS


def test_damaged_cards_and_artifacts_are_reported_and_set_aside_unless_needed(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    for lesson in (0, 1):
        relearn(store, lesson)
    for path in (
        tmp_path / "artifacts" / CARDS[0].artifacts[0],
        tmp_path / "cards" / f"{CARDS[0].sha256}.json",
    ):
        path.write_bytes(b"damaged")
    report = verify_store(tmp_path)
    assert len(report.damaged_artifacts) == 2
    assert not report.ok
    assert len(repair_store(tmp_path).quarantined) == 2
    assert verify_store(tmp_path).ok
    (tmp_path / "artifacts" / CARDS[1].artifacts[0]).write_bytes(b"damaged")
    assert "restore it from a backup" in " ".join(verify_store(tmp_path).damaged_artifacts)
    assert repair_store(tmp_path).quarantined == []
    assert not verify_store(tmp_path).ok
    (tmp_path / "artifacts" / CARDS[1].artifacts[0]).write_bytes(WORDS[1])
    (tmp_path / "cards" / f"{CARDS[1].sha256}.json").unlink()
    for run in (Store.open, repair_store):
        with pytest.raises(CorruptStore, match="missing: restore it from a backup"):
            run(tmp_path)


def test_the_card_of_a_store_that_never_relearned_is_mended_from_card_json(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    path = tmp_path / "cards" / f"{store.card.sha256}.json"
    for damage in (path.unlink, lambda: path.write_text("{")):
        damage()
        with pytest.raises(CorruptStore):
            Store.open(tmp_path)
        assert not verify_store(tmp_path).ok
        assert repair_store(tmp_path).actions
        assert verify_store(tmp_path).ok
        assert Store.open(tmp_path).card == store.card


def test_repair_goes_back_to_a_version_with_its_card(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    relearn(store)
    for version in manifests(tmp_path):
        if LanceTable.open(tmp_path, version=version).card_sha256 == CARDS[0].sha256:
            name = f"{2**64 - 1 - version:020d}.manifest"
            (tmp_path / "records.lance/_versions" / name).write_bytes(b"")
    with pytest.raises(CorruptStore):
        Store.open(tmp_path)
    repair_store(tmp_path)
    store = Store.open(tmp_path)
    assert store.card == make_card().upgraded()
    assert nearest(store, IDS, None) == IDS
    assert verify_store(tmp_path).ok


RELEARN = """
import sys
from pathlib import Path
from storage.store import Store
from tests.storage.commit.test_replacement import relearn
relearn(Store.open(sys.argv[1]), int(sys.argv[2]))
"""


def killed(folder: Path, point: str, lesson: int) -> None:
    env = {**os.environ, "PLACERAY_FAULT_AT": point}
    child = subprocess.run([sys.executable, "-c", RELEARN, str(folder), str(lesson)], env=env, check=False)
    assert child.returncode == -signal.SIGKILL, point


def check_either(folder: Path, lesson: int | None, then: int) -> None:
    """The store opens as it was or as it will be, and is sound."""
    store = Store.open(folder)
    now = then if store.card == CARDS[then] else lesson
    assert store.card == (make_card().upgraded() if now is None else CARDS[now])
    assert nearest(store, IDS, now) == IDS
    assert nearest(IndexPartition(str(folder)), IDS, now) == IDS
    report = verify_store(folder)
    assert report.ok, report


@pytest.mark.parametrize(
    ("point", "then"),
    [
        pytest.param("after_descriptors:3", "relearn", marks=pytest.mark.integration),
        *(
            pytest.param(point, then, marks=pytest.mark.fault)
            for point in POINTS
            for then in ("relearn", "commit", "repair", "compact")
        ),
    ],
)
def test_a_killed_replacement_answers_and_is_finished_by_the_next(
    tmp_path: Path, point: str, then: str
) -> None:
    before = contents(copied_store(tmp_path / "s", IDS))
    folder = tmp_path / "s"
    killed(folder, point, 0)
    check_either(folder, None, 0)
    store = Store.open(folder)
    if then == "commit":
        with store.lease():
            generation = 100 if store.card == CARDS[0] else 0
            store.commit(make_rows(store, ["new"], generation))
            store.delete(["new"])
    elif then == "repair":
        repair_store(folder)
    elif then == "compact":
        store.compact(keep_versions_s=0)
    check_either(folder, None, 0)
    store = Store.open(folder)
    with store.lease():
        todo = store.rows_to_describe(CARDS[0])
        if then == "relearn":
            kept = {"after_begin": 0, "after_descriptors:1": 8, "after_descriptors:3": 24}.get(point, 30)
            assert len(todo) == 30 - kept
    relearn(store)
    store = Store.open(folder)
    assert store.card == CARDS[0]
    assert nearest(store, IDS, 0) == IDS
    assert {key: values[:-1] for key, values in contents(store).items()} == {
        key: values[:-1] for key, values in before.items()
    }
    assert not [name for name in columns(folder) if name.endswith(("_next", "_former"))] or then == "relearn"
    assert verify_store(folder).ok


@pytest.mark.fault
def test_replacements_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    before = contents(copied_store(tmp_path, IDS))
    lesson: int | None = None
    rng = np.random.default_rng(4)
    for _ in range(12):
        then = 1 if lesson == 0 else 0
        killed(tmp_path, str(rng.choice(POINTS[:-1])), then)
        check_either(tmp_path, lesson, then)
        store = Store.open(tmp_path)
        relearn(store, then)
        lesson = then
        assert nearest(Store.open(tmp_path), IDS, lesson) == IDS
    assert contents(Store.open(tmp_path)) == before

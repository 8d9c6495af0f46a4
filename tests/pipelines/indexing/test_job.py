"""The index job on a real local Ray: what it stores, what it skips, what it refuses."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from models.checkpoints.importing import import_checkpoint
from models.weights import load_extractor
from pipelines.indexing.decode import decode
from pipelines.indexing.errors import IdsTaken
from pipelines.indexing.job import IndexReport, index
from serving.engine import QueryEngine
from storage.errors import CardMismatch, InvalidBatch, OutOfSpace, StoreLocked
from storage.store import Store
from tests.support.paths import GOLDEN
from tests.support.pictures import broken_files, photo, write_photos

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def stored(uri: str) -> dict[str, dict[str, object]]:
    return {row["image_id"]: row for row in Store.open(uri).metadata().to_pylist()}


def shown(report: IndexReport) -> tuple[int, int, int, int]:
    return report.input, report.accepted, report.rejected, report.unchanged


def test_index_processes_only_new_and_changed_photos(tmp_path: Path) -> None:
    """First run, same again, more photos, changed content, broken files: each does only what is missing."""
    photos, uri = tmp_path / "photos", str(tmp_path / "store")
    paths = write_photos(photos, 40)
    seen: list[tuple[int, int, int]] = []

    first = index(photos, uri, batch_size=8, commit_every=16, progress=lambda *state: seen.append(state))

    assert shown(first) == (40, 40, 0, 0)
    assert first.images_per_s > 0
    assert seen[-1] == (40, 0, 40)
    assert len(seen) > 1
    before = stored(uri)
    assert set(before) == {path.name for path in paths}
    assert before[paths[7].name]["utm_e"] == 500070.0
    assert first.store_version >= 3  # one per commit, and 40 images make at least two commits of 16
    assert Store.open(uri).verify().ok

    again = index(photos, uri)
    assert shown(again) == (40, 40, 0, 40)
    assert again.store_version == first.store_version

    write_photos(photos, 5, first=40)
    paths[3].write_bytes(photo(1003))
    for name, (data, _) in broken_files().items():
        (photos / name).write_bytes(data)
    third = index(photos, uri)
    broken = len(broken_files())
    assert shown(third) == (45 + broken, 45, broken, 39)
    after = stored(uri)
    assert len(after) == 45
    changed = {name for name in before if before[name]["sha256"] != after[name]["sha256"]}
    assert changed == {paths[3].name}
    assert {name for name in before if before[name]["shard"] != after[name]["shard"]} == changed
    with open(tmp_path / "store" / "rejected.csv", newline="", encoding="utf-8") as file:
        listed = {row["image_id"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == {name: reason for name, (_, reason) in broken_files().items()}
    assert third.rejected_by_reason == {
        reason: list(listed.values()).count(reason) for reason in listed.values()
    }
    assert Store.open(uri).verify().ok

    engine = QueryEngine(Store.open(uri), load_extractor("efficientnet-lite0"))
    for seed, name in (
        (1003, paths[3].name),
        (41, f"@{500410:.2f}@4000000.00@33@T@@@photo00041@@@@@@@@.jpg"),
    ):
        assert engine.answer(photo(seed)).matches[0].record.image_id == name


@pytest.mark.long
def test_index_corrected_listing_moves_the_place_without_extracting(tmp_path: Path) -> None:
    photos, uri = tmp_path / "photos", str(tmp_path / "store")
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.jpg").write_bytes(photo(i))
    listing = tmp_path / "photos" / "list.csv"
    listing.write_text("uri,lat,lon,heading\n0.jpg,48.2,16.37,10\n1.jpg,48.3,16.37,\n2.jpg,,,\n")
    first = index(listing, uri)
    before = stored(uri)
    assert before["0.jpg"]["utm_zone"] == "33U"
    assert before["2.jpg"]["lat"] is None
    assert (first.without_position, first.notes_by_reason, first.notes_file) == (1, {}, None)

    listing.write_text("uri,lat,lon,heading\n0.jpg,47.2,16.37,10\n1.jpg,48.3,16.37,\n2.jpg,,,\n")
    report = index(listing, uri)

    after = stored(uri)
    assert shown(report) == (3, 3, 0, 3)
    assert report.without_position == 1
    assert after["0.jpg"]["lat"] == 47.2
    assert float(str(after["0.jpg"]["utm_n"])) < float(str(before["0.jpg"]["utm_n"])) - 100_000
    assert after["0.jpg"]["shard"] == before["0.jpg"]["shard"]
    assert {name for name in before if before[name] != after[name]} == {"0.jpg"}
    assert Store.open(uri).verify().ok


@pytest.mark.long
def test_index_same_name_from_another_source_does_not_replace(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    for folder, seed in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "img.jpg").write_bytes(photo(seed))
    index(tmp_path / "a", uri)
    with pytest.raises(IdsTaken, match="--id-prefix"):
        index(tmp_path / "b", uri)
    index(tmp_path / "b", uri, id_prefix="b/")
    assert {row["uri"] for row in stored(uri).values()} == {str(tmp_path / x / "img.jpg") for x in "ab"}
    assert {row["source"] for row in stored(uri).values()} == {str(tmp_path / x) for x in "ab"}

    (tmp_path / "a/img.jpg").rename(tmp_path / "a/renamed.jpg")
    report = index(tmp_path / "a", uri)
    assert (report.missing_from_source, report.pruned, len(stored(uri))) == (1, 0, 3)
    assert report.notes_file is not None
    with open(report.notes_file, newline="", encoding="utf-8") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == ["missing_from_source"]
    report = index(tmp_path / "a", uri, prune=True, prune_share=0.5)
    assert (report.missing_from_source, report.pruned) == (1, 1)
    assert set(stored(uri)) == {"renamed.jpg", "b/img.jpg"}


def test_index_other_model_is_refused_before_any_work(tmp_path: Path) -> None:
    import dataclasses

    photos, uri = tmp_path / "photos", str(tmp_path / "store")
    write_photos(photos, 2)
    card = load_extractor("efficientnet-lite0").card
    Store.create(uri, dataclasses.replace(card, weights_sha256="0" * 64))
    files = sorted(path for path in Path(uri).rglob("*"))
    with pytest.raises(CardMismatch, match="give the weights file that made the store"):
        index(photos, uri)
    assert sorted(path for path in Path(uri).rglob("*")) == files


def test_index_into_a_locked_store_is_refused(tmp_path: Path) -> None:
    photos, uri = tmp_path / "photos", str(tmp_path / "store")
    write_photos(photos, 2)
    store = Store.create(uri, load_extractor("efficientnet-lite0").card)
    with store.lease(), pytest.raises(StoreLocked):
        index(photos, uri)
    assert Store.open(uri).count == 0
    with store.lease():  # the refused run holds nothing
        pass


@pytest.mark.parametrize("run", ["short", pytest.param("long", marks=pytest.mark.slow)])
@pytest.mark.long
def test_index_stages_are_separate_and_overlap(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding must not run inside the extractor, and extraction must not wait for the last decoded photo.

    In a long run actors decode and write.
    """
    monkeypatch.setattr("pipelines.indexing.plan.MANY_IMAGES", 40 if run == "long" else 41)

    def decode_last_after_first_extraction(batch: pa.Table, *, trace: str, **options: Any) -> pa.Table:
        if "0039" in batch["image_id"][-1].as_py():
            deadline = time.monotonic() + 90
            while '"extract"' not in Path(trace).read_text():
                assert time.monotonic() < deadline, "nothing is extracted while a photo is still undecoded"
                time.sleep(0.05)
        return decode(batch, trace=trace, **options)

    monkeypatch.setattr("pipelines.indexing.flow.decode", decode_last_after_first_extraction)
    photos, trace = tmp_path / "photos", tmp_path / "trace.jsonl"
    write_photos(photos, 40)
    trace.touch()
    index(photos, str(tmp_path / "store"), batch_size=8, trace=trace)
    spans = [json.loads(line) for line in trace.read_text().splitlines()]
    by_stage = {stage: [s for s in spans if s["stage"] == stage] for stage in ("decode", "extract", "write")}
    rows = {stage: sum(s["rows"] for s in spans) for stage, spans in by_stage.items()}
    assert rows == dict.fromkeys(by_stage, 40)
    pids = {stage: {s["pid"] for s in spans} for stage, spans in by_stage.items()}
    assert not pids["decode"] & pids["extract"]
    assert not pids["write"] & pids["extract"]
    assert run == "short" or not pids["write"] & pids["decode"]
    # Transferred are the network's input, then descriptor and local features in half precision, then the
    # record alone: each with less than 1 KB of metadata per image.
    min_bytes = {"decode": 224 * 224 * 3, "extract": 2 * (512 + 14 * 14 * 112), "write": 2 * 512}
    for stage, lower in min_bytes.items():
        sent = sum(s["bytes"] for s in by_stage[stage]) / 40
        assert lower <= sent < lower + 1000, f"{stage}: {sent} bytes per image"


def test_index_full_disk_in_a_worker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(batch: pa.Table, **options: Any) -> pa.Table:
        import pipelines.indexing.write as stage

        def full(*_: object) -> str:
            raise OutOfSpace("no space for 44000 bytes in /full: free some, then run the same command again")

        real, stage.write_shard = stage.write_shard, full
        try:
            return stage.write(batch, **options)
        finally:
            stage.write_shard = real

    monkeypatch.setattr("pipelines.indexing.shards.write", on_full_disk)
    write_photos(tmp_path / "photos", 2)
    uri = str(tmp_path / "store")
    with pytest.raises(OutOfSpace, match="44000"):
        index(tmp_path / "photos", uri)
    store = Store.open(uri)  # as the same command finds it again
    with store.lease():
        assert (store.count, store.verify().ok) == (0, True)


@pytest.mark.parametrize("usable", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.long
def test_index_compresses_large_maps_by_default(tmp_path: Path, usable: bool) -> None:
    """With maps of SelaVPR's shape; a projection is learned from the photos, where any can be used."""
    weights, photos, uri = tmp_path / "w.safetensors", tmp_path / "photos", str(tmp_path / "store")
    import_checkpoint(GOLDEN / "selavpr_small.pth", weights)
    photos.mkdir()
    for i in range(3):
        data = (GOLDEN / f"image_{i}.png").read_bytes()
        (photos / f"{i}.png").write_bytes(data if usable else data[:100])
    trace = tmp_path / "trace.jsonl"
    report = index(photos, uri, model=str(weights), trace=trace)
    card = Store.open(uri).card
    assert (card.grid_height, card.feature_dim) == (61, 128)
    if not usable:
        assert (report.rejected, card.feature_encoding) == (3, "int4")
        with pytest.raises(InvalidBatch, match="without pca"):
            index(photos, uri + "2", model=str(weights), features="int4-pca64")
        return
    assert (report.accepted, card.feature_encoding) == (3, "int4-pca64")
    assert Store.open(uri).codec.row_bytes == 119_076
    (sent,) = [s["bytes"] for s in map(json.loads, trace.read_text().splitlines()) if s["stage"] == "extract"]
    min_bytes = 3 * (119_076 + 2 * card.descriptor_dim)
    assert min_bytes <= sent < min_bytes + 3000  # only what is stored is transferred
    engine = QueryEngine.open(uri, model=str(weights))
    for path in photos.iterdir():
        match = engine.answer(path.read_bytes()).matches[0]
        assert match.record.image_id == path.name
        assert match.mutual_matches is not None
        assert match.mutual_matches > 3000  # of 3,721 cells; the query's are exact
    assert index(photos, uri, model=str(weights)).unchanged == 3


@pytest.mark.parametrize("option", ["batch_size", "extractors", "commit_every"])
def test_index_options_below_one_are_refused(tmp_path: Path, option: str) -> None:
    write_photos(tmp_path, 1)
    with pytest.raises(ValueError, match="at least 1"):
        index(tmp_path, str(tmp_path / "store"), **{option: 0})  # type: ignore[arg-type]

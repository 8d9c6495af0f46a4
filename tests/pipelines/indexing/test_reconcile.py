"""Sources over time: libraries that move, collections with equal names, photos that vanish, old stores."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.indexing.columns import amended_columns
from pipelines.indexing.decode import decode
from pipelines.indexing.errors import IdsTaken, PruneRefused, UnknownSource
from pipelines.indexing.reconcile import Change, Reconciled, reconcile
from pipelines.indexing.vanished import prune
from pipelines.sources import SourceError, list_source
from storage.store import Store
from storage.table.schema import row_schema
from tests.support.bucket_photos import put_folder
from tests.support.pictures import photo
from tests.support.store_samples import make_old_store, make_rows, make_store


def library(folder: Path, names: str, *, first: int = 0) -> Path:
    """Write small photos that differ; the same number gives the same photo."""
    for number, name in enumerate(names.split(), first):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    return folder


def run(
    store: Store, source: Path | str, *, follow_links: bool = False, **change: Any
) -> tuple[Reconciled, dict[str, str]]:
    """Index without model and Ray; return what was decided, and the reason of each rejected photo."""
    options = change.get("options")
    prefix = change.get("id_prefix", "")
    listing = list_source(source, id_prefix=prefix, follow_links=follow_links, options=options)
    with store.lease():
        reconciled = reconcile(store, listing, Change(**change))
        rows = decode(reconciled.work, card=store.card.to_json(), source_options=options)
        amended = rows.filter(pa.compute.and_(rows["unchanged"], rows["amend"]))
        if len(amended):
            store.amend(amended.select(amended_columns(store.card)))
        new = [row for row in rows.to_pylist() if not row["unchanged"] and not row["rejected"]]
        if new:
            schema = row_schema(store.card, optional=("source", "tags"))
            made = make_rows(store, [row["image_id"] for row in new]).to_pylist()
            vectors = [{name: row[name] for name in ("descriptor", "shard", "row")} for row in made]
            store.commit(
                pa.Table.from_pylist([a | b for a, b in zip(new, vectors, strict=True)], schema=schema)
            )
        if change.get("prune"):
            prune(store, reconciled.vanished)
    return reconciled, {row["image_id"]: row["rejected"] for row in rows.to_pylist() if row["rejected"]}


def stored(store: Store, column: str, top: Path) -> dict[str, str]:
    """Return a column of paths by id, relative to a folder."""
    rows = store.metadata().to_pylist()
    return {row["image_id"]: os.path.relpath(row[column], top) for row in rows}


def gone(reconciled: Reconciled) -> list[str]:
    return sorted(image_id for image_id, _ in reconciled.vanished.photos)


Make = Callable[[Path], Store]
STORES = pytest.mark.parametrize("make", [make_store, make_old_store], ids=["newest", "format 1"])


def test_the_source_of_each_row_is_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    run(store, library(tmp_path / "lib", "a/0.jpg 1.jpg"))
    assert stored(store, "source", tmp_path) == {"a/0.jpg": "lib", "1.jpg": "lib"}
    listing = tmp_path / "list.csv"
    listing.write_text("path,id,tags\nlib/a/0.jpg,x,night\n")
    run(store, listing)
    assert stored(store, "source", tmp_path)["x"] == "list.csv"
    listing.write_text("path,id,tags\nlib/a/0.jpg,x,night;rain\n")
    run(store, listing)
    assert {row["image_id"]: row["tags"] for row in store.metadata().to_pylist()}["x"] == '["night", "rain"]'


@STORES
def test_photos_that_vanished_are_named_and_pruned_on_request(tmp_path: Path, make: Make) -> None:
    store = make(tmp_path / "store")
    library(tmp_path / "lib", "0.jpg 1.jpg 2.jpg 3.jpg 4.jpg 5.jpg")
    other = library(tmp_path / "other", "9.jpg", first=9)
    run(store, tmp_path / "lib")
    run(store, other, id_prefix="other/")
    (other / "9.jpg").rename(other / "8.jpg")
    (tmp_path / "lib/0.jpg").unlink()
    (tmp_path / "lib/2.jpg").rename(tmp_path / "lib/2x.jpg")
    assert gone(run(store, tmp_path / "lib")[0]) == ["0.jpg", "2.jpg"]
    assert len(store.metadata()) == 8
    found, _ = run(store, tmp_path / "lib", prune=True, prune_share=0.3)
    assert gone(found) == ["0.jpg", "2.jpg"]
    # Rows of the other source stay, although its photo is gone too.
    assert set(stored(store, "uri", tmp_path)) == {
        "1.jpg",
        "2x.jpg",
        "3.jpg",
        "4.jpg",
        "5.jpg",
        "other/9.jpg",
    }
    assert gone(run(store, tmp_path / "lib")[0]) == []


@STORES
def test_more_than_a_fifth_is_pruned_only_where_allowed(tmp_path: Path, make: Make) -> None:
    store = make(tmp_path / "store")
    run(store, library(tmp_path / "lib", " ".join(f"{i}.jpg" for i in range(10))))
    for i in range(3):
        (tmp_path / f"lib/{i}.jpg").unlink()
    library(tmp_path / "lib", "new.jpg", first=20)
    with pytest.raises(PruneRefused, match=r"3 of the 10 .* --prune-share 0\.3$"):
        run(store, tmp_path / "lib", prune=True)
    assert len(store.metadata()) == 10  # nothing was extracted either
    run(store, tmp_path / "lib", prune=True, prune_share=0.3)
    assert len(store.metadata()) == 8


def test_a_fifth_is_pruned(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    run(store, library(tmp_path / "lib", " ".join(f"{i}.jpg" for i in range(10))))
    (tmp_path / "lib/0.jpg").unlink()
    (tmp_path / "lib/1.jpg").unlink()
    run(store, tmp_path / "lib", prune=True)
    assert len(store.metadata()) == 8


def test_nothing_is_pruned_that_may_only_be_out_of_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "store")
    library(tmp_path / "disk", "5.jpg 6.jpg", first=5)
    lib = library(tmp_path / "lib", "0.jpg sub/1.jpg sub/2.jpg")
    (lib / "disk").symlink_to(tmp_path / "disk")
    run(store, lib, follow_links=True)
    assert len(store.metadata()) == 5
    assert gone(run(store, lib, prune=True, prune_share=1.0)[0]) == []  # --follow-links was left out
    shutil.move(tmp_path / "disk", tmp_path / "unmounted")
    assert gone(run(store, lib, follow_links=True, prune=True, prune_share=1.0)[0]) == []
    shutil.move(tmp_path / "unmounted", tmp_path / "disk")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert gone(run(store, lib, follow_links=True)[0]) == []
    with pytest.raises(PruneRefused, match="cannot be listed"):
        run(store, lib, follow_links=True, prune=True, prune_share=1.0)
    assert len(store.metadata()) == 5


def test_an_empty_or_missing_source_prunes_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    lib = library(tmp_path / "lib", "0.jpg")
    run(store, lib)
    (lib / "0.jpg").unlink()
    with pytest.raises(SourceError, match="contains no images"):
        run(store, lib, prune=True, prune_share=1.0)
    lib.rmdir()
    with pytest.raises(SourceError, match="does not exist"):
        run(store, lib, prune=True, prune_share=1.0)
    assert len(store.metadata()) == 1


def test_a_photo_under_another_id_is_not_gone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    lib = library(tmp_path / "lib", "0.jpg 1.jpg")
    run(store, lib)
    assert gone(run(store, lib, id_prefix="x/")[0]) == []
    (lib / "0.jpg").unlink()
    assert gone(run(store, lib, id_prefix="x/")[0]) == ["0.jpg", "x/0.jpg"]


def test_a_rejected_photo_is_not_gone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    lib = library(tmp_path / "lib", "0.jpg 1.jpg")
    run(store, lib)
    (lib / "0.jpg").write_bytes(b"damaged")
    found, rejected = run(store, lib)
    assert (gone(found), rejected) == ([], {"0.jpg": "not_an_image"})


@STORES
def test_a_moved_library_keeps_its_rows(tmp_path: Path, make: Make) -> None:
    store = make(tmp_path / "store")
    run(store, library(tmp_path / "old", "a/0.jpg 1.jpg"))
    before = {row["image_id"]: row["shard"] for row in store.metadata().to_pylist()}
    shutil.move(tmp_path / "old", tmp_path / "new")
    _, rejected = run(store, tmp_path / "new")
    assert rejected == {}
    assert stored(store, "uri", tmp_path) == {"a/0.jpg": "new/a/0.jpg", "1.jpg": "new/1.jpg"}
    assert {row["image_id"]: row["shard"] for row in store.metadata().to_pylist()} == before
    (tmp_path / "new/1.jpg").unlink()
    assert gone(run(store, tmp_path / "new")[0]) == ["1.jpg"]


def test_a_copy_of_a_library_is_one_photo_each(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    run(store, library(tmp_path / "a", "0.jpg 1.jpg"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    run(store, tmp_path / "b")
    assert set(stored(store, "uri", tmp_path).values()) == {"b/0.jpg", "b/1.jpg"}
    assert set(stored(store, "source", tmp_path).values()) == {"b"}


@STORES
def test_other_photos_under_the_same_ids_are_refused_before_the_first(tmp_path: Path, make: Make) -> None:
    store = make(tmp_path / "store")
    run(store, library(tmp_path / "a", "0.jpg 1.jpg 2.jpg"))
    version = store.version
    b = library(tmp_path / "b", "0.jpg 1.jpg new.jpg", first=0)
    (b / "1.jpg").write_bytes(photo(99))
    with pytest.raises(IdsTaken) as refused:
        run(store, b)
    assert refused.value.exit_code == 2
    for part in ("--id-prefix", f"--moved-from {tmp_path / 'a'}", str(b / "1.jpg")):
        assert part in str(refused.value)
    assert store.version == version
    run(store, b, id_prefix="b/")
    assert len(store.metadata()) == 6


@STORES
@pytest.mark.parametrize("copied", [False, True])
def test_a_moved_library_with_changed_photos(tmp_path: Path, make: Make, copied: bool) -> None:
    store = make(tmp_path / "store")
    run(store, library(tmp_path / "top/old", "0.jpg 1.jpg 2.jpg"))
    (shutil.copytree if copied else shutil.move)(tmp_path / "top/old", tmp_path / "new")
    (tmp_path / "new/0.jpg").unlink()
    (tmp_path / "new/1.jpg").write_bytes(photo(99))
    with pytest.raises(IdsTaken, match="--moved-from"):
        run(store, tmp_path / "new")
    found, rejected = run(store, tmp_path / "new", moved_from=tmp_path / "top")
    assert rejected == {}
    assert found.upgraded == (make is make_old_store)
    assert gone(found) == ["0.jpg"]
    assert store.card.format_version == 3
    assert set(stored(store, "source", tmp_path).values()) == {"new"}
    assert stored(store, "uri", tmp_path) == {
        "0.jpg": "top/old/0.jpg",
        "1.jpg": "new/1.jpg",
        "2.jpg": "new/2.jpg",
    }
    again, _ = run(store, tmp_path / "new", prune=True, prune_share=0.5)
    assert gone(again) == ["0.jpg"]
    assert set(stored(store, "uri", tmp_path)) == {"1.jpg", "2.jpg"}


def test_moved_from_a_source_that_the_store_does_not_have_names_those_it_has(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    run(store, library(tmp_path / "a", "0.jpg"))
    with pytest.raises(UnknownSource, match=str(tmp_path / "a")):
        run(store, library(tmp_path / "b", "0.jpg"), moved_from=tmp_path / "c")


def test_a_changed_photo_of_the_same_source_is_extracted_again(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    lib = library(tmp_path / "lib", "0.jpg 1.jpg")
    run(store, lib)
    before = {row["image_id"]: row["sha256"] for row in store.metadata().to_pylist()}
    (lib / "0.jpg").write_bytes(photo(99))
    assert run(store, lib)[1] == {}
    after = {row["image_id"]: row["sha256"] for row in store.metadata().to_pylist()}
    assert {name for name in before if before[name] != after[name]} == {"0.jpg"}


def test_a_listing_may_give_an_id_to_another_of_its_photos(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    library(tmp_path, "0.jpg 1.jpg")
    (tmp_path / "l.csv").write_text("path,id\n0.jpg,x\n")
    run(store, tmp_path / "l.csv")
    (tmp_path / "l.csv").write_text("path,id\n1.jpg,x\n")
    assert run(store, tmp_path / "l.csv")[1] == {}
    assert stored(store, "uri", tmp_path) == {"x": "1.jpg"}


def test_known_sources_do_not_replace_each_others_photos(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    a, b = library(tmp_path / "a", "0.jpg"), library(tmp_path / "b", "1.jpg", first=1)
    run(store, a)
    run(store, b)
    (b / "0.jpg").write_bytes(photo(50))
    assert run(store, b)[1] == {"0.jpg": "id_taken"}
    (a / "0.jpg").unlink()
    assert run(store, b)[1] == {}
    assert stored(store, "source", tmp_path)["0.jpg"] == "b"


def test_rows_of_old_stores_get_their_source_after_an_upgrade(tmp_path: Path) -> None:
    store = make_old_store(tmp_path / "store")
    run(store, library(tmp_path / "lib", "a/0.jpg b/1.jpg"))
    assert stored(store, "source", tmp_path) == {"a/0.jpg": "lib/a", "b/1.jpg": "lib/b"}  # by their uris
    with store.lease():
        assert store.upgrade()
    run(store, tmp_path / "lib")
    assert set(stored(store, "source", tmp_path).values()) == {"lib"}


def test_another_listing_of_the_same_photos_takes_them_over(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    library(tmp_path, "0.jpg 1.jpg")
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("path\n0.jpg\n1.jpg\n")
    run(store, tmp_path / "one.csv")
    version = store.version
    run(store, tmp_path / "two.csv")
    assert set(stored(store, "source", tmp_path).values()) == {"two.csv"}
    assert store.version == version + 1


def test_a_library_that_moved_into_a_bucket_keeps_its_rows(
    tmp_path: Path, moto_url: str, credentials: None
) -> None:
    photos = library(tmp_path / "photos", "a.jpg b/c.jpg")
    make_store(tmp_path / "store", [])
    store = Store.open(tmp_path / "store")
    run(store, photos)
    before = {row["image_id"]: (row["shard"], row["row"]) for row in store.metadata().to_pylist()}
    prefix, options = uuid.uuid4().hex, {"endpoint": moto_url}
    put_folder(moto_url, photos, prefix)
    bucket = f"s3://placeray/{prefix}"
    reconciled, rejected = run(store, bucket, moved_from=photos, options=options)
    assert (rejected, reconciled.vanished.photos) == ({}, ())
    rows = store.metadata().to_pylist()
    assert {row["image_id"]: (row["shard"], row["row"]) for row in rows} == before
    assert {row["uri"] for row in rows} == {f"{bucket}/a.jpg", f"{bucket}/b/c.jpg"}
    assert {row["source"] for row in rows} == {bucket}
    put_folder(moto_url, photos, f"{prefix}-2")  # and from there to another prefix
    reconciled, rejected = run(store, f"{bucket}-2", moved_from=f"{bucket}/", options=options)
    assert rejected == {}
    assert {row["source"] for row in store.metadata().to_pylist()} == {f"{bucket}-2"}
    with pytest.raises(UnknownSource):
        run(store, f"{bucket}-2", moved_from="s3://placeray/none", options=options)

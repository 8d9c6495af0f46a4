"""The index job over parts of a large source, with its stages in this process instead of on Ray."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from pipelines.indexing import job, large_listing
from pipelines.indexing import work as work_module
from pipelines.indexing.commits import Committer
from pipelines.indexing.decode import decode
from pipelines.indexing.extract import Extract
from pipelines.indexing.run import Outcome
from pipelines.indexing.write import write
from storage.store import Store
from tests.pipelines.test_bucket_photos import make_forms
from tests.support.bucket_photos import put_folder
from tests.support.pictures import write_photos

pytestmark = pytest.mark.slow

PHOTOS = 26


class RunHere:
    """Stands in for `ClusterRun`: decodes, extracts and writes in this process."""

    parts: list[int]
    extractors: ClassVar[dict[tuple[str, str], Extract]] = {}

    def __init__(
        self, ray: object, store: Store, request: Any, tally: Any, *rest: object, **options: Any
    ) -> None:
        self._store, self._request, self._tally = store, request, tally

    def extract(self, work: pa.Table, *, total: int) -> None:
        type(self).parts.append(work.num_rows)
        assert total >= work.num_rows
        work = work.append_column("number", pa.array(np.arange(work.num_rows)))
        card = self._store.card.to_json()
        key = (self._store.uri, card)
        if key not in self.extractors:
            self.extractors[key] = Extract(model=self._request.model, store_uri=self._store.uri, card=card)
        rows = write(
            self.extractors[key](decode(work, card=card, source_options=self._request.source_options)),
            store_uri=self._store.uri,
            card=card,
        )
        Committer(self._store, self._tally, commit_every=10, commit_seconds=30.0).commit_all([rows])

    outcome = Outcome(seconds=1.0, nodes_lost=0, waited_s=0.0, flows=1, leftover_bytes_removed=0)


@contextlib.contextmanager
def no_session(**options: object) -> Iterator[None]:
    yield None


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    RunHere.parts = []
    monkeypatch.setattr(job, "ClusterRun", RunHere)
    monkeypatch.setattr(job, "ray_session", no_session)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "WHOLE_ROWS", 8)
    monkeypatch.setattr(large_listing, "PART_ROWS", 7)
    monkeypatch.setattr("pipelines.sources.listing.ROWS_AT_ONCE", 4)


def test_a_small_source_is_one_part(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", PHOTOS)
    report = job.index(tmp_path / "photos", tmp_path / "store", quiet=True)
    assert (report.input, report.accepted, report.rejected) == (PHOTOS, PHOTOS, 0)
    assert RunHere.parts == [PHOTOS]


def test_a_large_source_is_indexed_in_parts_resumed_and_pruned(tmp_path: Path, streamed: None) -> None:
    paths = write_photos(tmp_path / "photos", PHOTOS)
    (tmp_path / "photos/broken.jpg").write_bytes(b"no image")
    listing = tmp_path / "city.csv"
    names = [f"photos/{path.name}" for path in paths]
    listing.write_text("\n".join(["uri", *names, "photos/broken.jpg", names[2]]))
    seen: list[tuple[int, int, int]] = []
    first = job.index(listing, tmp_path / "store", progress=lambda *state: seen.append(state))
    assert (first.input, first.accepted) == (PHOTOS + 2, PHOTOS)
    assert first.rejected_by_reason == {"not_an_image": 1, "duplicate_id": 1}
    assert RunHere.parts == [8, 7, 7, 6]
    assert seen[-1] == (PHOTOS + 2, 2, PHOTOS + 2)
    with open(str(first.rejected_file), newline="", encoding="utf-8") as file:
        assert {row["reason"] for row in csv.DictReader(file)} == {"not_an_image", "duplicate_id"}
    listing.write_text("\n".join(["uri", *names[:-3]]))
    fewer = job.index(listing, tmp_path / "store", quiet=True)
    assert (fewer.unchanged, fewer.missing_from_source, fewer.pruned) == (PHOTOS - 3, 3, 0)
    pruned = job.index(listing, tmp_path / "store", quiet=True, prune=True)
    assert (pruned.pruned, Store.open(tmp_path / "store").count) == (3, PHOTOS - 3)
    assert Store.open(tmp_path / "store").verify().ok


def test_photos_in_a_bucket_are_the_same_in_every_form(
    tmp_path: Path, moto_url: str, credentials: None
) -> None:
    base = f"s3://placeray/{uuid.uuid4().hex}"
    make_forms(tmp_path / "forms", base)
    put_folder(moto_url, tmp_path / "forms", base.rpartition("/")[2])
    local = sorted((tmp_path / "forms/loose").iterdir())
    lines = [str(path) if at % 2 else f"{base}/loose/{path.name}" for at, path in enumerate(local)]
    (tmp_path / "mixed.csv").write_text("\n".join(["uri", *lines, f"{base}/none.jpg"]))
    sources = [f"{base}/loose", f"{base}/city.csv", str(tmp_path / "mixed.csv")]
    sources += [f"{base}/tar", f"{base}/city.parquet"]
    expected = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in local)
    for at, source in enumerate(sources):
        store = tmp_path / f"store{at}"
        report = job.index(source, store, source_options={"endpoint": moto_url}, quiet=True)
        assert (report.accepted, report.input - report.accepted) == (len(local), int("mixed" in source))
        assert report.rejected_by_reason == ({"missing": 1} if "mixed" in source else {})
        rows = Store.open(store).metadata()
        assert sorted(rows["sha256"].to_pylist()) == expected
        assert rows["utm_e"].null_count == 0
        assert "endpoint" not in str(rows["uri"].to_pylist() + rows["source"].to_pylist())

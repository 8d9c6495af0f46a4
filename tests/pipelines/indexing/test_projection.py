"""A projection learned from a sample, and stores of other encodings from the command line to the answer."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from ray import exceptions

from models.aggregation import sample_key
from models.images import decode_image
from models.runtime.execution import Execution
from models.weights import load_card, load_extractor
from pipelines.indexing.decode import decode
from pipelines.indexing.extract import Extract
from pipelines.indexing.failures import raise_failure
from pipelines.indexing.flow import Block, FlowEnded, Stage
from pipelines.indexing.job import index
from pipelines.indexing.plan import Plan, Request
from pipelines.indexing.projection import (
    SampleCells,
    learn_projection,
    learn_projection_here,
    sample_rows,
)
from pipelines.indexing.run_metrics import NoMetrics
from pipelines.indexing.watch import Watch
from pipelines.sources import list_source
from serving.engine import QueryEngine
from storage.errors import CardMismatch, InvalidBatch
from storage.features.projection import fit_projection, read_projection
from storage.objects.location import open_location
from storage.store import Store
from tests.pipelines.indexing.test_rounds import FewNodes
from tests.support.pictures import broken_files, write_photos


def test_the_sample_does_not_depend_on_the_order_of_the_listing(tmp_path: Path) -> None:
    write_photos(tmp_path, 1)
    row = list_source(tmp_path)
    ids = pa.array([f"photo{number}.jpg" for number in range(200)])
    listing = pa.concat_tables([row] * 200).set_column(row.column_names.index("image_id"), "image_id", ids)
    chosen = sample_rows(listing)["image_id"].to_pylist()
    turned = sample_rows(listing.take(list(range(199, -1, -1))))["image_id"].to_pylist()
    assert len(chosen) == 80
    assert sorted(turned) == sorted(chosen)
    assert set(chosen) == set(sorted(ids.to_pylist(), key=sample_key)[:80])


def test_the_sample_leaves_out_what_cannot_be_used(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, 3)
    for name, (data, _) in broken_files().items():
        (tmp_path / name).write_bytes(data)
    card = load_card("efficientnet-lite0").stored_as("int4-pca64")
    work = sample_rows(list_source(tmp_path))
    work = work.append_column("number", pa.array(range(work.num_rows)))
    worker = SampleCells(model="efficientnet-lite0", store_uri=str(tmp_path / "none"), card=card.to_json())
    made = worker(decode(work, card=card.to_json()))
    assert made.column_names == ["image_id", "number", "failure", "cells"]
    cells = dict(zip(made["image_id"].to_pylist(), made["cells"].to_pylist(), strict=True))
    usable = [name for name, value in cells.items() if value is not None]
    assert sorted(usable) == sorted(path.name for path in paths)
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    _, expected = extractor.extract([decode_image(paths[1].read_bytes()).pixels])
    found = np.frombuffer(cells[paths[1].name], np.float32)
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-4)


def test_a_worker_with_another_model_reports_that(tmp_path: Path) -> None:
    write_photos(tmp_path, 1)
    card = dataclasses.replace(load_card("efficientnet-lite0"), weights_sha256="0" * 64)
    work = sample_rows(list_source(tmp_path))
    work = work.append_column("number", pa.array(range(work.num_rows)))
    worker = SampleCells(model="efficientnet-lite0", store_uri="none", card=card.to_json())
    with pytest.raises(CardMismatch):
        raise_failure(worker(decode(work, card=card.to_json())))


class FlowHere:
    """A flow without a cluster, whose first extractor dies after its first batch."""

    died = False

    def __init__(self, ray: Any, work: pa.Table, store: Any, plan: Plan, *, extract: type[Extract]) -> None:
        request, card = plan.request, store.card.to_json()
        self.worker = extract(model=request.model, store_uri=store.uri, card=card)
        size = request.batch_size
        self.batches = [decode(work.slice(at, size), card=card) for at in range(0, work.num_rows, size)]

    def next(self, timeout_s: float) -> Block:
        if not self.batches:
            raise FlowEnded
        if len(self.batches) == 1 and not FlowHere.died:
            FlowHere.died = True
            raise exceptions.ActorDiedError()
        made = self.worker(self.batches.pop(0))
        return Block(made, made.num_rows)

    def stages(self) -> list[Stage]:
        return []

    def __enter__(self) -> FlowHere:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_projection_is_that_of_the_sample_in_any_order_and_after_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_photos(tmp_path, 10)
    listing = list_source(tmp_path)
    card = load_card("efficientnet-lite0").stored_as("int8-pca32")
    cluster = FewNodes()
    monkeypatch.setattr("pipelines.indexing.rounds.Flow", FlowHere)
    monkeypatch.setattr("pipelines.indexing.rounds.Reservation", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("pipelines.indexing.rounds.SETTLE_S", 0.0)
    lines: list[str] = []
    watch = Watch(cluster, say=lines.append, metrics=NoMetrics(), total=64)
    ray = SimpleNamespace(get=lambda ref: ref)
    request = Request("efficientnet-lite0", row_bytes=0)
    projections = [
        learn_projection(ray, rows, card, "memory", request, watch, channels=32)
        for rows in (listing, listing.take(list(range(9, -1, -1))))
    ]
    assert FlowHere.died
    assert any("workers were lost" in line for line in lines)
    expected = fit_projection(_features(paths), 32)
    for found in projections:
        assert found.shape == (112, 32)
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=0.02)
    here = learn_projection_here(listing, card, "efficientnet-lite0", Execution(), channels=32)
    np.testing.assert_array_equal(projections[0], projections[1])
    np.testing.assert_allclose(here @ here.T, expected @ expected.T, atol=0.02)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("encoding", ["int4-pca64", pytest.param("binary", marks=pytest.mark.slow)])
def test_index_into_an_encoded_store_answers_and_refuses_another_encoding(
    tmp_path: Path, encoding: str
) -> None:
    photos, uri = tmp_path / "photos", str(tmp_path / "store")
    paths = write_photos(photos, 6)
    assert index(photos, uri, features=encoding).accepted == 6  # type: ignore[arg-type]
    store = Store.open(uri)
    assert store.card.feature_encoding == encoding
    if store.card.projection_sha256 is not None:
        expected = fit_projection(_features(paths), 64)
        found = read_projection(open_location(uri), store.card.projection_sha256, shape=(112, 64))
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=0.02)
    write_photos(photos, 2, first=6)
    assert index(photos, uri).unchanged == 6  # the store's own encoding is the default
    assert Store.open(uri).count == 8
    with pytest.raises(CardMismatch, match="does not fit the store"):
        index(photos, uri, features="int8")
    engine = QueryEngine.open(uri)
    data = paths[4].read_bytes()
    result = engine.answer(data)
    assert result.matches[0].record.image_id == paths[4].name
    assert not result.degraded
    here, there, similarity = engine.matched_points(data, result.matches[0].record)
    assert len(here) == len(there) == len(similarity) == result.matches[0].mutual_matches
    # The photo is the stored one: cells match themselves.
    assert np.mean(np.all(here == there, axis=1)) > 0.9


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_too_few_usable_photos_are_an_error_where_the_encoding_was_requested(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, (data, _) in broken_files().items():
        (photos / name).write_bytes(data)
    with pytest.raises(InvalidBatch, match="more images"):
        index(photos, tmp_path / "store", features="int4-pca64")
    assert not (tmp_path / "store" / "card.json").exists()


def _features(paths: list[Path]) -> NDArray[np.float32]:
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    return np.concatenate([extractor.extract([decode_image(path.read_bytes()).pixels])[1] for path in paths])

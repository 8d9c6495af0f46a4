"""Learning again from stored features: what it replaces, when it runs by itself, when it is advised."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.aggregation import Aggregation, sample_key
from models.aggregation.choice import chosen_aggregation, with_aggregation
from models.aggregation.describer import Describer, open_aggregation
from models.feature_encoder import FeatureEncoder
from models.store_fit import require_fit
from pipelines import relearning
from pipelines.cli import main
from pipelines.relearn import relearn
from pipelines.relearning import (
    aggregation_info,
    learn_from,
    relearn_if_due,
    relearn_store,
    relearning_advice,
    sample_first,
)
from serving.answer import QueryResult
from serving.engine import QueryEngine
from storage.card import FEATURE_ENCODINGS, FeatureEncoding
from storage.errors import CardMismatch, CorruptStore
from storage.features.encodings import FeatureCodec, projected_channels
from storage.features.projection import fit_projection, projection_sha256
from storage.features.shards import write_shard
from storage.search.index_partition import IndexPartition
from storage.store import Store
from tests.support.city_store import CityStore
from tests.support.store_samples import make_card, rows_of

CHANNELS, GRID = 64, 4
IDS = [f"street/{number:03d}" for number in range(90)]


def model_features(ids: list[str]) -> np.ndarray:
    """Return (B, 4, 4, 64) float32 unit features, as a model would make them."""
    kinds = np.random.default_rng(9).standard_normal((20, CHANNELS))
    maps = []
    for image_id in ids:
        random = np.random.default_rng(int(image_id[-3:]))
        cells = kinds[random.integers(0, 20, (GRID, GRID))] + 0.3 * random.standard_normal(
            (GRID, GRID, CHANNELS)
        )
        maps.append(cells / np.linalg.norm(cells, axis=-1, keepdims=True))
    return np.stack(maps).astype(np.float32)


def make_city(folder: Path, encoding: FeatureEncoding = "float16", chosen: str = "learned") -> Store:
    card = dataclasses.replace(make_card(), feature_dim=CHANNELS, grid_height=GRID, grid_width=GRID)
    channels = projected_channels(encoding, CHANNELS)
    projection = None if channels is None else fit_projection(model_features(IDS), channels)
    digest = None if projection is None else projection_sha256(projection)
    card = card.stored_as(encoding, projection_sha256=digest)
    start = chosen_aggregation(chosen, card, FeatureCodec(card, projection=projection))
    artifacts = [] if start is None else [start.to_bytes()]
    return Store.create(folder, with_aggregation(card, start), projection=projection, artifacts=artifacts)


def add(store: Store, ids: list[str]) -> None:
    """Index photos as an index run does; needs the lease."""
    features = model_features(ids)
    encoded = FeatureEncoder(store.codec).encode(features)
    own = np.zeros((len(ids), store.card.descriptor_dim), np.float32)
    own[:, 0] = 1
    describer = Describer(store.artifact, store.codec)
    descriptors = describer.describe_rows(store.card, own, encoded).astype(np.float16)
    rows = rows_of(store.card, ids, shard=write_shard(store.uri, ids, encoded))
    column = pa.FixedSizeListArray.from_arrays(pa.array(descriptors.reshape(-1)), store.card.descriptor_dim)
    at = rows.schema.get_field_index("descriptor")
    store.commit(rows.set_column(at, rows.schema.field(at), column))


def descriptors_of(store: Store) -> dict[str, bytes]:
    table = store.snapshot.table.take(range(store.count))
    return {row["image_id"]: np.array(row["descriptor"]).tobytes() for row in table.to_pylist()}


MARKS = {"float16": (), "int8-pca32": pytest.mark.long}


@pytest.mark.parametrize(
    "encoding",
    [pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in FEATURE_ENCODINGS],
)
def test_indexing_then_learning_equals_learning_then_indexing(
    tmp_path: Path, encoding: FeatureEncoding
) -> None:
    first, second = (make_city(tmp_path / name, encoding) for name in ("first", "second"))
    with first.lease():
        add(first, IDS)
        learned = learn_from(first)
        relearn_store(first, learned)
    with second.lease():
        relearn_store(second, learned)
        for at in range(0, len(IDS), 7):
            add(second, IDS[at : at + 7])
    assert descriptors_of(first) == descriptors_of(second)
    assert first.verify().ok
    assert len(set(descriptors_of(first).values())) == len(IDS)
    # A query's features are encoded first, as stored ones are.
    describer = Describer(first.artifact, first.codec)
    own = np.ones((3, 16), np.float32)
    asked = describer.describe(first.card, own, model_features(IDS[5:8]))
    assert [hits[0].record.image_id for hits in first.search(asked, k=1)] == IDS[5:8]


def test_a_growing_store_learns_by_itself_while_it_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_city(tmp_path / "store")
    with store.lease():
        add(store, IDS[:20])
        assert relearn_if_due(store) is None  # fewer than can be learned from
        add(store, IDS[20:40])
        report = relearn_if_due(store)
        assert report is not None
        assert (report.photos, report.rows, report.replaced) == (40, 40, 40)
        assert report.aggregation_sha256 == store.card.aggregation_sha256
        add(store, IDS[40:79])
        assert relearn_if_due(store) is None  # not doubled
        add(store, IDS[79:])
        again = relearn_if_due(store)
        assert again is not None
        assert again.photos == 90
        monkeypatch.setattr(relearning, "AUTOMATIC_BELOW", 90)
        add(store, [f"{image_id}x001" for image_id in IDS] + [f"{image_id}y002" for image_id in IDS])
        assert relearn_if_due(store) is None


def test_a_large_city_is_learned_from_its_sample_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relearning, "sample_size", lambda row_bytes: 32)
    store = make_city(tmp_path / "store")
    ids = [f"street/{number:03d}" for number in range(200)]
    rows = {
        "image_id": ids,
        "rejected": [None] * 199 + ["missing"],
        "stored_sha256": ["known"] + [None] * 199,
    }
    work = pa.table(rows, schema=pa.schema([(name, pa.string()) for name in rows]))
    assert sample_first(store, work.slice(0, 128)) == [work.slice(0, 128)]
    first, others = sample_first(store, work)
    chosen = sorted(ids[1:199], key=sample_key)[:40]
    assert first["image_id"].to_pylist() == [image_id for image_id in ids if image_id in chosen]
    assert sorted(first["image_id"].to_pylist() + others["image_id"].to_pylist()) == ids
    with store.lease():
        add(store, IDS[:40])
        assert relearn_if_due(store, listed=200) is not None
        assert sample_first(store, work) == [work]
        assert aggregation_info(store)["indexed_since_learned"] == 0
        add(store, IDS)
        assert relearn_if_due(store) is None  # from as many photos as a sample has


def test_an_aggregation_from_a_file_stays(tmp_path: Path) -> None:
    features = [model_features(IDS[:40])]
    (tmp_path / "words").write_bytes(Aggregation.fit(features).to_bytes())
    store = make_city(tmp_path / "store", chosen=str(tmp_path / "words"))
    with store.lease():
        add(store, IDS)
        assert relearn_if_due(store) is None
    kept = open_aggregation(store.artifact, store.card)
    assert kept is not None
    assert (kept.photos, kept.automatic) == (40, False)


def test_the_file_that_made_a_stores_descriptors_fits_the_store(tmp_path: Path) -> None:
    """Whether the store learned it or it was given; what another city learned does not fit."""
    store = make_city(tmp_path / "store")
    with store.lease():
        add(store, IDS)
    relearn(store.uri)
    card = Store.open(store.uri).card
    assert card.aggregation_sha256 is not None
    own = tmp_path / "store" / "artifacts" / card.aggregation_sha256
    assert hashlib.sha256(own.read_bytes()).hexdigest() == card.aggregation_sha256
    require_fit(store.uri, card, {"aggregation": str(own)})
    others = tmp_path / "others"
    others.write_bytes(Aggregation.fit([model_features(IDS[:40])]).to_bytes())
    with pytest.raises(CardMismatch, match="is not the aggregation of the store"):
        require_fit(store.uri, card, {"aggregation": str(others)})
    relearn(store.uri, use=str(others))
    given = Store.open(store.uri).card
    require_fit(store.uri, given, {"aggregation": str(others)})
    with pytest.raises(CardMismatch, match="is not the aggregation of the store"):
        require_fit(store.uri, given, {"aggregation": str(own)})


def test_stores_of_the_models_own_descriptors_stay_so(tmp_path: Path) -> None:
    store = make_city(tmp_path / "store", chosen="gem")
    with store.lease():
        add(store, IDS)
        assert relearn_if_due(store) is None
    assert relearning_advice(store) is None
    assert store.card.aggregation_sha256 is None
    assert store.card.descriptor_dim == 16
    report = relearn(store.uri)
    assert (report["photos"], report["rows"]) == (90, 90)
    assert Store.open(store.uri).card.descriptor_dim == 512


def test_learning_again_is_advised_when_the_city_has_grown_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relearning, "AUTOMATIC_BELOW", 40)
    store = make_city(tmp_path / "store")
    with store.lease():
        add(store, IDS[:40])
        relearn_store(store, dataclasses.replace(learn_from(store), city_photos=40, left_out=0.95))
        assert relearning_advice(store) is None
        add(store, IDS[40:])
        assert relearning_advice(store) is None
        relearn_store(store, dataclasses.replace(learn_from(store), city_photos=9))
        assert relearning_advice(store) == (
            "the store has grown to 90 photos since its descriptors were learned with 9"
        )
        few = Aggregation.fit([model_features(IDS[:45])], components=20)
        relearn_store(store, dataclasses.replace(few, left_out=0.0, city_photos=90))
        advice = relearning_advice(store)
        assert advice is not None
        assert advice.startswith("descriptors leave out ")
        assert advice.endswith("% of the variance of the newest photos, and 0% of those learned from")


def test_an_interrupted_run_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_city(tmp_path / "store")
    with store.lease():
        add(store, IDS)
    before, version = descriptors_of(store), store.version
    monkeypatch.setattr(relearning, "_CHUNK", 25)
    read, calls = relearning._read, 0

    def stops(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return read(*args)

    monkeypatch.setattr(relearning, "_read", stops)
    with pytest.raises(KeyboardInterrupt):
        relearn(store.uri)
    reader = Store.open(store.uri)
    assert (reader.version, descriptors_of(reader)) == (version, before)
    calls = 10
    report = relearn(store.uri)
    assert report["replaced"] == 90 - 2 * 25
    whole = make_city(tmp_path / "whole")
    with whole.lease():
        add(whole, IDS)
    relearn(whole.uri)
    assert descriptors_of(Store.open(store.uri)) == descriptors_of(Store.open(whole.uri))


def test_a_partition_moves_to_the_new_descriptors_and_compares_no_others(tmp_path: Path) -> None:
    store = make_city(tmp_path / "store")
    with store.lease():
        add(store, IDS)
    part = IndexPartition(store.uri)
    before = store.card
    describer, own = Describer(store.artifact, store.codec), np.ones((1, 16), np.float32)
    asked = {before.aggregation_sha256: describer.describe(before, own, model_features(IDS[3:4]))}
    relearn(store.uri)
    store.refresh()
    part.refresh()
    asked[store.card.aggregation_sha256] = describer.describe(store.card, own, model_features(IDS[3:4]))
    assert len(asked) == 2
    for digest, descriptors in asked.items():
        (answer,) = part.search(descriptors, k=1, aggregation_sha256=digest)
        assert answer.hits[0].record.image_id == IDS[3]


def test_lost_features_stop_it_and_change_nothing(tmp_path: Path) -> None:
    store = make_city(tmp_path / "store")
    with store.lease():
        add(store, IDS[:45])
        add(store, IDS[45:])
    sorted(tmp_path.glob("store/features/*.parquet"))[0].unlink()
    version = store.version
    with pytest.raises(
        CorruptStore, match="cannot be read, so it can get no new descriptor: run placeray verify"
    ):
        relearn(store.uri)
    assert Store.open(store.uri).version == version


def test_the_command_line_learns_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_city(tmp_path / "store")
    with store.lease():
        add(store, IDS)
    assert main(["info", "--store", store.uri, "--json"]) == 0
    assert '"learned_from": 0' in capsys.readouterr().out
    assert main(["relearn", "--store", store.uri, "--json"]) == 0
    assert '"photos": 90' in capsys.readouterr().out
    with store.lease():
        add(store, [f"more/{number:03d}" for number in range(5)])
    assert main(["info", "--store", store.uri, "--json"]) == 0
    shown = capsys.readouterr().out
    assert '"learned_from": 90' in shown
    assert '"indexed_since_learned": 5' in shown
    words = tmp_path / "words"
    words.write_bytes(b"no aggregation")
    assert main(["relearn", "--store", store.uri, "--use", str(words)]) == 2
    assert "damaged or not one that placeray wrote" in capsys.readouterr().err


def first_answers_right(uri: str, photos: list[Path]) -> float:
    """Return the percentage of photos whose first answer by descriptor is within 25 m of the truth."""
    right = []
    answers = QueryEngine.open(uri).answer_many(map(str, photos), top_k=1, candidates=20, rerank=False)
    for photo, result in zip(photos, answers, strict=True):
        assert isinstance(result, QueryResult)
        found = result.matches[0].record
        east, north = map(float, photo.name.split("@")[1:3])
        assert found.utm_e is not None
        assert found.utm_n is not None
        right.append(math.hypot(found.utm_e - east, found.utm_n - north) <= 25)
    return 100 * sum(right) / len(right)


@pytest.mark.long
def test_recall_before_and_after_is_that_of_the_labelled_photos(
    tmp_path: Path, city_store: CityStore, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, city = str(tmp_path / "store"), str(city_store.folder / "city")
    shutil.copytree(city_store.uri, uri)
    version, right = Store.open(uri).version, first_answers_right(uri, city_store.queries)
    command = ["relearn", "--store", uri, "--json", "--quiet", "--dataset"]
    assert main([*command, str(tmp_path / "no-city")]) == 2
    assert Store.open(uri).version == version, "nothing is replaced before the data set is read"
    capsys.readouterr()
    assert main([*command, city]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["replaced"] == len(city_store.database)
    assert report["recall_before"]["1"] == pytest.approx(right)
    assert report["recall_after"]["1"] == pytest.approx(first_answers_right(uri, city_store.queries))
    assert report["recall_after"]["1"] > report["recall_before"]["1"]

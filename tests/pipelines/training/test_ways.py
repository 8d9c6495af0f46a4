"""Ways to use a model are ordered by recall; the default stays unless another is better beyond chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from models.checkpoints.weights_file import save_weights
from models.feature_encoder import FeatureEncoder
from models.images import decode_image
from models.weights import load_extractor, load_network
from pipelines.evaluation.result import Evaluation, QueryOutcome
from pipelines.sources import list_source
from pipelines.training.data import DataFolders
from pipelines.training.ways import Way, best_way, gain_over_best, measure_ways, recalls_of
from storage.features.shards import write_shard
from storage.position import Position
from storage.store import Store
from storage.table.schema import row_schema
from tests.support.training_city import SIDE, tiny_settings, write_split, write_tiny_vit

QUERIES = 100


def outcome(number: int, right: list[bool]) -> QueryOutcome:
    hits = [1 if one else 2 for one in right]
    return QueryOutcome(f"{number:03}.jpg", Position(), None, 1, (), *hits)


def way(
    aggregation: Any, score: Any, first: tuple[float, float], *, fifth: float = 90.0, default: bool = False
) -> Way:
    """A way whose recall is `first`: the first so many of the queries are right at each stage."""
    recall = {
        stage: {"1": value, "5": fifth, "10": 100.0, "20": 100.0}
        for stage, value in zip(("global", "reranked"), first, strict=True)
    }
    evaluation = Evaluation(
        dataset="city",
        protocol="",
        model="model",
        store_version=1,
        queries=QUERIES,
        database=10,
        recall=recall,
        seconds={},
        queries_without_positive=0,
        queries_without_coordinates=0,
        queries_rejected=0,
        database_without_coordinates=0,
        degraded=0,
        outcomes=tuple(outcome(i, [i < right for right in first]) for i in range(QUERIES)),
    )
    return Way(aggregation, score, default, evaluation)


def test_the_way_of_most_right_answers_at_both_stages_is_best() -> None:
    ways = (
        way("gem", "count", (50.0, 80.0), default=True),
        way("gem", "votes", (50.0, 81.0)),
        way("learned", "count", (70.0, 80.0)),
        way("learned", "votes", (70.0, 70.0)),
    )
    assert best_way(ways, ways) is ways[2]
    assert recalls_of(ways)["learned, count"] == {"global": 70.0, "reranked": 80.0}


def test_gain_is_over_the_best_way_before_training_even_where_another_stays_the_usual_one() -> None:
    start = (way("gem", "count", (50.0, 80.0), default=True), way("learned", "votes", (50.5, 80.5)))
    assert best_way(start, start) is start[0]  # half a point of a few photos may be chance
    trained = way("gem", "count", (53.0, 80.0), default=True)
    assert gain_over_best(trained, start) == {
        "aggregation": "learned",
        "score": "votes",
        "global": 2.5,
        "reranked": -0.5,
    }


def test_gain_of_a_model_without_local_features_is_the_same_at_both_stages() -> None:
    start, trained = (way("gem", "count", (right, right), default=True) for right in (50.0, 53.0))
    for one in (start, trained):
        del one.evaluation.recall["reranked"]  # as evaluations of such models leave it out
    assert gain_over_best(trained, (start,)) == {
        "aggregation": "gem",
        "score": "count",
        "global": 3.0,
        "reranked": 3.0,
    }


def test_equal_first_answers_are_told_apart_by_the_first_five() -> None:
    worse = way("gem", "count", (50.0, 50.0), default=True)
    equal, better = way("learned", "votes", (60.0, 80.0)), way("learned", "count", (60.0, 80.0), fifth=95.0)
    assert best_way((worse, equal, better), (worse,)) is better


@pytest.mark.parametrize(("more", "replaces"), [(0, False), (3, False), (5, False), (6, True)])
def test_the_default_stays_unless_another_way_is_better_than_by_chance(more: int, replaces: bool) -> None:
    usual = way("learned", "votes", (75.0, 78.0), default=True)
    other = way("learned", "count", (75.0, 78.0 + more))
    assert best_way((usual, other), (usual, other)) is (other if replaces else usual)


def test_the_usual_way_of_a_trained_model_is_that_of_the_model_it_began_as() -> None:
    began = (way("learned", "votes", (75.0, 78.0), default=True), way("gem", "count", (26.0, 71.0)))
    trained = (
        way("gem", "count", (26.0, 71.0), default=True),
        way("learned", "votes", (75.0, 78.0)),
        way("learned", "count", (75.0, 81.0)),
    )
    assert best_way(trained, began) is trained[1]


def index_here(
    database: Path, store_uri: str, *, model: str, image_size: tuple[int, int], aggregation: str, **_: Any
) -> None:
    """Index without Ray."""
    assert aggregation == "gem"
    extractor = load_extractor(model, image_size=image_size, device="cpu")
    card = extractor.card.stored_as("float16")
    store = Store.create(store_uri, card)
    rows = list_source(database).sort_by("uri").to_pylist()
    pixels = [decode_image(Path(row["uri"]).read_bytes(), min_side_px=1).pixels for row in rows]
    descriptors, features = extractor.extract(pixels)
    ids = [row["image_id"] for row in rows]
    known = {name: [row[name] for row in rows] for name in ("uri", "utm_e", "utm_n", "utm_zone")}
    made = {
        "image_id": ids,
        "sha256": ["0" * 64] * len(ids),
        "width": [SIDE] * len(ids),
        "height": [SIDE] * len(ids),
        "descriptor": list(descriptors.astype(card.descriptor_dtype)),
        "shard": [write_shard(store.uri, ids, FeatureEncoder(store.codec).encode(features))] * len(ids),
        "row": list(range(len(ids))),
    }
    schema = row_schema(card)
    columns = [pa.array((known | made).get(one.name, [None] * len(ids)), one.type) for one in schema]
    with store.lease():
        store.commit(pa.Table.from_arrays(columns, schema=schema))


@pytest.mark.slow
def test_a_model_is_measured_in_every_way_and_its_card_says_which_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.training.ways.index", index_here)
    city = write_split(tmp_path / "city", "val", places=6, seed=1)
    vit, chosen = write_tiny_vit(tmp_path / "vit.safetensors"), tmp_path / "chosen.safetensors"
    network, card = load_network(str(vit), image_size=(SIDE, SIDE))
    save_weights(chosen, network, preprocessing=card.preprocessing, aggregation="learned", score="votes")
    queries = frozenset(map(str, (city / "images/val/queries").iterdir()))
    data = DataFolders(str(city), "val", str(city), "val")
    for model, usual in ((vit, ("gem", "count")), (chosen, ("learned", "votes"))):
        ways = measure_ways(data, str(model), tiny_settings(vit), queries, name="before", quiet=True)
        assert {(one.aggregation, one.score) for one in ways} == {
            (aggregation, score) for aggregation in ("gem", "learned") for score in ("votes", "count")
        }
        assert [(one.aggregation, one.score) for one in ways if one.default] == [usual]
        for one in ways:
            assert one.evaluation.queries == 6
            assert one.evaluation.conditions["score"] == one.score
            assert ("aggregation_sha256" in one.evaluation.conditions) == (one.aggregation == "learned")

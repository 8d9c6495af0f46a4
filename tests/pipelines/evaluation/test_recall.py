"""Recall@K: which answers count as right, and queries that cannot be scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyproj
import pytest
import utm

from models.images import ImageRejected
from pipelines.evaluation.describe import describe_conditions
from pipelines.evaluation.recall import measure_recall
from pipelines.sources import SourceError
from serving.answer import Match, QueryResult
from serving.matching_options import ALL_EXACTLY
from storage.position import Position
from storage.records import ImageRecord
from tests.support.pictures import photo
from tests.support.store_samples import make_card

GEOD = pyproj.Geod(ellps="WGS84")


def utm_of(degrees: tuple[float, float]) -> tuple[float, float, str]:
    east, north, number, letter = utm.from_latlon(*degrees)
    return float(east), float(north), f"{number}{letter}"


def record(
    image_id: str, east: float | None, zone: str | None = "33T", *, north: float = 4_000_000.0
) -> ImageRecord:
    position = Position(utm_e=east, utm_n=None if east is None else north, utm_zone=zone)
    return ImageRecord(image_id, image_id, "", 1, 1, position, None, None, "s", 0)


class FixedAnswers:
    """Stands in for the engine: answers by the photo's bytes, so that only the scoring is under test."""

    def __init__(
        self, database: list[ImageRecord], answers: dict[bytes, list[tuple[str, float, int]]]
    ) -> None:
        self.by_id = {item.image_id: item for item in database}
        self.answers = answers
        columns = {
            name: [getattr(item, name) for item in database]
            for name in ("image_id", "utm_e", "utm_n", "utm_zone")
        }
        kinds = (pa.string(), pa.float64(), pa.float64(), pa.string())
        known = pa.table({n: pa.array(v, t) for (n, v), t in zip(columns.items(), kinds, strict=True)})
        self.matching = ALL_EXACTLY
        self.store = SimpleNamespace(
            metadata=lambda: known, uri="memory", version=7, card=make_card(model="fixed")
        )
        self.extractor = SimpleNamespace(precision="float32", device=SimpleNamespace(type="cpu"))
        self.method, self.max_pixels = "exact", 1_000_000

    def answer_many(
        self, photos: Iterable[str], *, top_k: int, candidates: int, rerank: bool, min_candidates: int
    ) -> Iterator[QueryResult | ImageRejected]:
        self.asked = {"top_k": top_k, "candidates": candidates, "rerank": rerank}
        yield from (self.answer(Path(path).read_bytes(), top_k) for path in photos)

    def answer(self, image: bytes, top_k: int) -> QueryResult | ImageRejected:
        if image not in self.answers:
            return ImageRejected("empty", "the file is empty")
        matches = tuple(
            Match(rank, self.by_id[image_id], similarity, count)
            for rank, (image_id, similarity, count) in enumerate(self.answers[image][:top_k], start=1)
        )
        times = dict.fromkeys(("decode", "extract", "search", "fetch", "rerank", "total"), 1000.0)
        return QueryResult("fixed", 7, False, matches, times)


def dataset(folder: Path, queries: dict[str, bytes]) -> Path:
    for name in ("database", "queries"):
        (folder / name).mkdir(parents=True)
    for name, data in queries.items():
        (folder / "queries" / name).write_bytes(data)
    return folder


def run(
    folder: Path, database: list[ImageRecord], cases: dict[str, list[tuple[str, float, int]]], **o: Any
) -> Any:
    photos = {name: photo(i) for i, name in enumerate(cases)}
    engine = FixedAnswers(database, {photos[name]: answers for name, answers in cases.items()})
    return measure_recall(dataset(folder, photos), engine, **o)  # type: ignore[arg-type]


def at(east: float, zone: str = "33@T") -> str:
    return f"@{east:.2f}@4000000.00@{zone}@.jpg"


def test_recall_threshold_is_inclusive_and_both_orders_are_scored(tmp_path: Path) -> None:
    database = [record("near", 525.0), record("far", 525.01), record("here", 500.0)]
    result = run(
        tmp_path,
        database,
        {
            # By similarity `far` leads; re-ranking puts `near` first.
            at(500.0): [("near", 0.8, 9), ("far", 0.9, 3), ("here", 0.7, 1)],
            # Exactly 25 m is right, one centimetre more is wrong.
            at(550.01): [("far", 0.9, 5), ("near", 0.8, 4)],
        },
    )
    assert result.recall["global"] == {"1": 50.0, "5": 100.0, "10": 100.0, "20": 100.0, "100": 100.0}
    assert result.recall["reranked"]["1"] == 100.0
    assert (result.queries, result.database, result.store_version) == (2, 3, 7)
    assert result.seconds["extract"] == 2.0
    assert "25 m" in result.protocol
    assert result.matched_per_query == 2.5
    assert result["matched_per_query"] == 2.5
    assert json.loads(json.dumps(dict(result))) == dict(result)
    assert "outcomes" not in result
    assert repr(result).count("50.0 %") == 1
    assert "<td>50.0</td>" in result._repr_html_()
    assert "95 % interval" in result._repr_html_()


def test_recall_counts_every_query_and_reports_unusable_ones(tmp_path: Path) -> None:
    answers = [("here", 0.9, 5), ("lost", 0.8, 4)]
    database = [record("here", 500.0), record("lost", None)]
    cases = {at(500.0): answers, at(9_000.0): answers, "holiday.jpg": answers}
    folder = tmp_path / "set"
    photos = {name: photo(i) for i, name in enumerate(cases)}
    engine = FixedAnswers(database, {photos[name]: cases[name] for name in cases})
    dataset(folder, {**photos, at(501.0): b""})

    result = measure_recall(folder, engine)  # type: ignore[arg-type]

    assert result.queries == 3
    assert result.recall["reranked"]["1"] == pytest.approx(33.33)
    assert result.queries_without_positive == 1
    assert result.queries_without_coordinates == 1
    assert result.queries_rejected == 1
    assert result.database_without_coordinates == 1
    assert {outcome.rejected for outcome in result.outcomes} == {None, "empty"}


def test_recall_same_metres_in_another_zone_are_another_place(tmp_path: Path) -> None:
    database = [record("west", 500.0, "32T"), record("anywhere", 501.0, None)]
    result = run(tmp_path, database, {at(500.0): [("west", 0.9, 2), ("anywhere", 0.8, 1)]})
    assert result.recall["reranked"] == {"1": 0.0, "5": 100.0, "10": 100.0, "20": 100.0, "100": 100.0}
    assert result.outcomes[0].positives == 1


def test_recall_without_scorable_queries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images"):
        run(tmp_path / "none", [record("a", 1.0)], {})
    with pytest.raises(SourceError, match="coordinates"):
        run(tmp_path / "unplaced", [record("a", 1.0)], {"x.jpg": []})
    with pytest.raises(SourceError, match="empty"):
        run(tmp_path / "empty", [], {at(1.0): []})


@pytest.mark.parametrize(
    ("lat", "lon", "places"), [(50.0, 12.0, ("32U", "33U")), (0.0, 36.8, ("37M", "37N"))]
)
def test_recall_counts_pairs_across_the_border_of_a_zone_and_the_equator(
    tmp_path: Path, lat: float, lon: float, places: tuple[str, str]
) -> None:
    step = 0.5e-4  # 5.5 m north and up to 5.5 m east
    degrees = [(lat - step, lon - step), (lat + step, lon + step)]
    (east, north, west_zone), (other_east, other_north, other_zone) = map(utm_of, degrees)
    assert (west_zone, other_zone) == places
    database = [
        record("across", other_east, other_zone, north=other_north),
        record("far", other_east + 40, other_zone, north=other_north),
    ]
    name = f"@{east:.2f}@{north:.2f}@{west_zone[:-1]}@{west_zone[-1]}@.jpg"
    result = run(tmp_path, database, {name: [("far", 0.9, 5), ("across", 0.8, 9), ("far", 0.7, 1)]})
    assert result.queries_without_positive == 0
    assert result.outcomes[0].positives == 1
    assert (result.outcomes[0].first_hit_global, result.outcomes[0].first_hit_reranked) == (2, 2)
    assert result.recall["reranked"] == {"1": 0.0, "5": 100.0, "10": 100.0, "20": 100.0, "100": 100.0}
    across = result.outcomes[0].position.distance_m(database[0].position)
    assert across == pytest.approx(GEOD.inv(*degrees[0][::-1], *degrees[1][::-1])[2], abs=0.02)


def test_nothing_is_re_ranked_where_the_store_has_no_local_features(tmp_path: Path) -> None:
    name, shot = at(500.0), photo(0)
    engine = FixedAnswers([record("near", 510.0), record("far", 590.0)], {shot: [("near", 0.9, 0)]})
    engine.store.card = make_card(model="fixed").stored_as("none")
    result = measure_recall(dataset(tmp_path, {name: shot}), engine)  # type: ignore[arg-type]
    assert list(result.recall) == list(result.intervals["recall"]) == ["global"]
    assert result.conditions["candidates"] == 0
    assert result.conditions["matching"] is None
    assert "no re-ranking" in result.protocol
    assert engine.asked["rerank"] is False
    told = dict(describe_conditions(result.conditions))
    assert (told["re-ranking"], told["local features"]) == ("none", "none")

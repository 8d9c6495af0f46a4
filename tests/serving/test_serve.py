"""The service on a real Ray Serve, in both topologies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
import torch

from models.images import ImageRejected
from serving.client import PlaceClient
from serving.engine import QueryEngine
from serving.matching_options import matching_of
from serving.priors.soft_prior import SoftPrior
from serving.tracks.city_map import CityMap
from serving.tracks.motion import at_rate
from serving.tracks.tracker import track
from storage.search.filters import AllOf, Heading, Near, Tagged, Taken, inside_geojson
from tests.support.answers import agreeing_matches, agreeing_places
from tests.support.city_store import CityStore
from tests.support.serve_client import deployed, query, serve_started

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def serve_url(local_ray: None) -> Iterator[str]:
    with serve_started() as url:
        yield url


@pytest.fixture(scope="module")
def engine(city_store: CityStore) -> Iterator[QueryEngine]:
    # With as many threads as a replica takes: another number sums in another order, 1e-7 apart.
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    yield QueryEngine.open(city_store.uri)
    torch.set_num_threads(threads)


def same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two answers agree in everything but their times."""
    names: tuple[str, ...] = ("model", "store_version", "degraded")
    names += ("reranked",) if "reranked" in expected else ()
    return all(answer[name] == expected[name] for name in names) and agreeing_matches(
        answer["matches"], expected["matches"]
    )


@pytest.mark.parametrize(
    ("topology", "shards", "count", "matching"),
    [
        pytest.param("compact", 1, 12, {}, marks=pytest.mark.long),
        ("split", 2, 12, {}),
        pytest.param("compact", 1, 100, {}, marks=pytest.mark.slow),
        pytest.param("split", 1, 100, {}, marks=pytest.mark.slow),
        pytest.param("split", 2, 100, {}, marks=pytest.mark.slow),
        pytest.param("split", 4, 100, {}, marks=pytest.mark.slow),
        pytest.param("split", 2, 50, {"matching": "fast", "stop_early": True}, marks=pytest.mark.slow),
    ],
)
def test_serve_answers_like_the_engine(
    serve_url: str,
    engine: QueryEngine,
    city_store: CityStore,
    topology: str,
    shards: int,
    count: int,
    matching: dict[str, Any],
) -> None:
    engine = QueryEngine(engine.store, engine.extractor, matching=matching_of(matching))
    photos = [path.read_bytes() for path in [*city_store.queries, *city_store.database]]
    options = [
        {"top_k": 3 + i % 7, "candidates": 5 + 7 * (i % 9), "rerank": i % 5 != 4} for i in range(count)
    ]
    with deployed(city_store.uri, topology=topology, shards=shards, **matching):
        for i, option in enumerate(options):
            photo = photos[i % len(photos)]
            reply = query(serve_url, photo, **option)
            assert reply.status_code == 200, reply.text
            expected = engine.answer(photo, **option).to_dict()
            assert same(reply.json(), expected), f"query {i}: {option}\n{reply.json()}\n{expected}"
        assert len({str(query(serve_url, photo).json()["matches"]) for photo in photos[:3]}) == 3
        if topology == "split":
            pair = {"image_id": engine.answer(photos[0]).matches[0].record.image_id}
            lines = requests.post(
                f"{serve_url}/v1/matches",
                params=pair,
                data=photos[0],
                headers={"content-type": "image/jpeg"},
                timeout=30,
            ).json()
            record = engine.store.get([pair["image_id"]])[0]
            here, there, similarity = engine.matched_points(photos[0], record)
            assert len(lines["pairs"]) == len(similarity) > 0
            for got, a, b, s in zip(lines["pairs"], here, there, similarity, strict=True):
                assert got == pytest.approx([*a, *b, s], abs=1e-4)
            assert requests.get(f"{serve_url}/readyz", timeout=30).status_code == 200
            info = requests.get(f"{serve_url}/v1/info", timeout=30).json()
            assert (info["shards"], info["rows"]) == (shards, len(city_store.database))
            narrowed_alike(serve_url, engine, photos[:2])
            followed_alike(serve_url, engine, photos[:6])


def narrowed_alike(url: str, engine: QueryEngine, photos: list[bytes]) -> None:
    """Filters and a prior give through the service what they give in this process."""
    client = PlaceClient(url)
    first = engine.answer(photos[0], candidates=48).matches[2].record
    lat, lon = first.position.lat, first.position.lon
    assert lat is not None
    assert lon is not None
    square = [[lon + x, lat + y] for x, y in ((0, 0), (5e-4, 0), (5e-4, 5e-4), (0, 5e-4), (0, 0))]
    near, taken = Near(lat, lon, 60.0), Taken(after=datetime(2020, 1, 1, tzinfo=UTC))
    filters = [
        near,
        inside_geojson(json.dumps({"type": "Polygon", "coordinates": [square]})),
        Heading(60.0, 40.0),
        taken,
        Taken(before=datetime(2020, 1, 1, tzinfo=UTC)),
        Tagged("night"),
        AllOf((near, Heading(60.0, 40.0), taken)),
    ]
    considered = []
    for photo in photos:
        for within in filters:
            got = client.answer(photo, top_k=5, candidates=48, within=within)
            expected = engine.answer(photo, top_k=5, candidates=48, within=within)
            assert same(got.to_dict(), expected.to_dict()), within
            assert agreeing_places(got.place, expected.place), within
            assert got.considered == expected.considered
            considered.append(got.considered)
        prior = SoftPrior(lat, lon, 40.0)
        got = client.answer(photo, top_k=5, candidates=12, prior=prior)
        assert same(got.to_dict(), engine.answer(photo, top_k=5, candidates=12, prior=prior).to_dict())
    rows = engine.store.metadata().num_rows
    assert {0, rows} < set(considered), "some filters pass nothing and some everything, others a part"


def followed_alike(url: str, engine: QueryEngine, photos: list[bytes]) -> None:
    """A drive through the service is that of the same answers in this process."""
    answers = list(engine.answer_many(photos, top_k=48, candidates=48))
    matches = [answer.matches for answer in answers if not isinstance(answer, ImageRejected)]
    expected = list(track(matches, CityMap.of(engine.store.snapshot), at_rate(len(matches))))
    got = PlaceClient(url).track(photos, candidates=48)["frames"]
    assert len(got) == len(expected) == len(photos)
    for frame, located in zip(got, expected, strict=True):
        assert frame["known"] == located.known
        assert frame["probability"] == pytest.approx(located.probability, abs=0.05)
        assert frame["lost"] == pytest.approx(located.lost, abs=0.05)

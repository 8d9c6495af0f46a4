"""The routes of the service, field by field, against the engine's results for the same photos."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from models.images import encode_thumbnail
from serving.engine import QueryEngine
from serving.http.page_files import static_paths
from storage.store import Store
from tests.support.answers import agreeing_matches, agreeing_places
from tests.support.city_store import MODEL, CityStore, copy_rows
from tests.support.http_client import ask, multipart, reason
from tests.support.serve_client import wait_for
from tests.support.service_server import Running, running_service

JPEG = "image/jpeg"
FORM = "multipart/form-data; boundary=b0undary"
IMAGE_PART = 'Content-Disposition: form-data; name="image"; filename="a.jpg"'


@pytest.fixture(scope="module")
def engine(city_store: CityStore) -> QueryEngine:
    return QueryEngine.open(city_store.uri)


def expected_matches(engine: QueryEngine, photo: bytes, **options: Any) -> list[dict[str, Any]]:
    return [
        {
            "rank": match.rank,
            "image_id": match.record.image_id,
            "uri": match.record.uri,
            "lat": match.record.lat,
            "lon": match.record.lon,
            "utm_e": match.record.utm_e,
            "utm_n": match.record.utm_n,
            "similarity": match.similarity,
            "mutual_matches": match.mutual_matches,
            "score": match.score,
            "score_kind": match.score_kind,
        }
        for match in engine.answer(photo, **options).matches
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1, "candidates": 1},
        {"top_k": 48, "candidates": 7},
        {"top_k": 100, "candidates": 1000},
        {"top_k": 9, "rerank": False},
    ],
    ids=str,
)
def test_query_answers_field_by_field_as_the_engine(
    running: Running, engine: QueryEngine, city_store: CityStore, options: dict[str, Any]
) -> None:
    for path in city_store.queries[:2]:
        photo = path.read_bytes()
        sent = {name: str(value).lower() for name, value in options.items()}
        answer = ask(
            f"{running.url}/v1/query", "POST", body=photo, kind=JPEG, headers={"x-request-id": "q-1"}, **sent
        )
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "q-1"
        response = answer.json()
        expected = expected_matches(engine, photo, **options)
        assert agreeing_matches(response["matches"], expected)
        assert len(expected) == min(48, options.get("top_k", 5))
        timings = response.pop("timings_ms")
        del response["matches"]
        place, calibration = response.pop("place"), response.pop("calibration")
        assert agreeing_places(place, engine.answer(photo, **options).place)
        assert (calibration["valid"], calibration["guaranteed"]) == (False, False)
        assert response == {
            "request_id": "q-1",
            "model": MODEL,
            "store_version": engine.store.version,
            "degraded": False,
        }
        assert list(timings) == ["decode", "extract", "search", "fetch", "rerank", "total"]
        assert all(value >= 0 for value in timings.values())
        reranked = options.get("rerank", True)
        assert (timings["rerank"] > 0) == reranked
        assert {match["mutual_matches"] is None for match in expected[:1]} == {not reranked}


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (FORM, [IMAGE_PART]),
        ('Multipart/Form-Data; charset=utf-8; boundary="b0undary"', [IMAGE_PART]),
        (FORM, [IMAGE_PART.replace("a.jpg", "../../../etc/passwd") + "\r\nContent-Type: text/plain"]),
        (FORM, ['Content-Disposition: form-data; name="note"', IMAGE_PART]),
        (FORM, [IMAGE_PART, 'Content-Disposition: form-data; name="url"']),
    ],
)
def test_query_takes_the_field_of_a_form_as_it_takes_a_body(
    running: Running, city_store: CityStore, kind: str, parts: list[str]
) -> None:
    photo = city_store.queries[2].read_bytes()
    url = f"{running.url}/v1/query"
    form = multipart(*((part, photo if "image" in part else b"http://127.0.0.1/") for part in parts))
    matches = ask(url, "POST", body=form, kind=kind, top_k=3).json()["matches"]
    for plain in (JPEG, "image/png", "application/octet-stream", "IMAGE/JPEG; q=1"):
        assert ask(url, "POST", body=photo, kind=plain, top_k=3).json()["matches"] == matches
    assert len(matches) == 3


@pytest.mark.parametrize(
    ("kind", "body", "status", "expected"),
    [
        (None, b"abc", 415, "unsupported_media_type"),
        ("application/json", b'{"image": "abc"}', 415, "unsupported_media_type"),
        ("text/plain; image/jpeg", b"abc", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", b"image=abc", 415, "unsupported_media_type"),
        (JPEG, b"", 422, "empty"),
        (FORM, multipart((IMAGE_PART, b"")), 422, "empty"),
        (FORM, multipart((IMAGE_PART.replace("image", "photo"), b"abc")), 422, "missing_image"),
        (FORM, multipart(('Content-Disposition: form-data; name="image"', b"abc")), 422, "missing_image"),
        ("multipart/form-data", multipart((IMAGE_PART, b"abc")), 400, "bad_request"),
        (FORM, b"abc", 400, "bad_request"),
    ],
)
def test_query_of_other_bodies_is_refused(
    running: Running, kind: str | None, body: bytes, status: int, expected: str
) -> None:
    for path in ("/v1/query", "/v1/matches?image_id=x"):
        answer = ask(running.url + path, "POST", body=body, kind=kind)
        if path == "/v1/query" or answer.status != 404:  # an unknown id may be noticed first
            assert (answer.status, reason(answer)) == (status, expected)


@pytest.mark.parametrize(
    ("path", "name", "good", "bad"),
    [
        ("/v1/query", "top_k", ["1", "100"], ["0", "-1", "101", "1.5", "", "x", "1e3", "9" * 5000]),
        ("/v1/query", "candidates", ["1", "1000"], ["0", "1001", "nan", "0x10", "1_0_"]),
        ("/v1/query", "rerank", ["true", "false"], ["", "maybe", "2", "null"]),
        ("/v1/image", "max_side_px", ["16", "2048"], ["15", "2049", "-1", "x"]),
        ("/v1/places", "limit", ["1", "5000"], ["0", "5001", "-1", "", "NaN"]),
        ("/v1/image", "image_id", [], ["", "x" * 1025, None]),
        ("/v1/matches", "image_id", [], ["", "x" * 1025, None]),
    ],
)
def test_parameters_are_taken_within_their_bounds_only(
    running: Running, city_store: CityStore, path: str, name: str, good: list[str], bad: list[str | None]
) -> None:
    post = path in ("/v1/query", "/v1/matches")
    photo = city_store.queries[0].read_bytes()
    others: dict[str, Any] = {}
    if path == "/v1/image":
        others = {"image_id": ask(f"{running.url}/v1/places").json()["places"][0]["image_id"]}
    for values, expected in ((good, 200), (bad, 422)):
        for value in values:
            parameters = {**others, name: value}
            answer = ask(
                running.url + path,
                "POST" if post else "GET",
                body=photo if post else None,
                kind=JPEG if post else None,
                **parameters,
            )
            assert answer.status == expected, (value, answer.body)
            if expected == 422:
                assert reason(answer) == "bad_parameter"
                assert name in answer.json()["error"]["message"]


def test_matches_are_the_engines_points(running: Running, engine: QueryEngine, city_store: CityStore) -> None:
    photo = city_store.queries[4].read_bytes()
    for match in engine.answer(photo, top_k=3).matches:
        here, there, similarity, agree = engine.matched_lines(photo, match.record)
        answer = ask(
            f"{running.url}/v1/matches",
            "POST",
            body=photo,
            kind=JPEG,
            headers={"x-request-id": "m-1"},
            image_id=match.record.image_id,
        )
        response = answer.json()
        pairs = np.array(response.pop("pairs"))
        assert response == {
            "request_id": "m-1",
            "store_version": engine.store.version,
            "image_id": match.record.image_id,
            "agree": agree.tolist(),
        }
        assert agree.any()
        assert len(pairs) == len(similarity) == match.mutual_matches
        expected = np.concatenate([here, there, similarity[:, None]], axis=1)
        np.testing.assert_allclose(pairs, expected, atol=1e-5)
        assert pairs[:, :4].min() >= 0
        assert pairs[:, :4].max() <= 1
    unknown = ask(f"{running.url}/v1/matches", "POST", body=photo, kind=JPEG, image_id="nobody")
    assert (unknown.status, reason(unknown)) == (404, "unknown_image")


def test_image_is_the_stored_photo_small_and_upright(running: Running, engine: QueryEngine) -> None:
    place = engine.store.places(48)[7]
    (record,) = engine.store.get([place["image_id"]])
    original = Path(record.uri).read_bytes()
    for side in (16, 100, 2048, None):
        parameters = {} if side is None else {"max_side_px": side}
        answer = ask(f"{running.url}/v1/image", image_id=record.image_id, **parameters)
        assert (answer.status, answer.headers["content-type"]) == (200, JPEG)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "private" in answer.headers["cache-control"]
        assert answer.body == encode_thumbnail(original, max_side_px=side or 640)[0]
        with Image.open(io.BytesIO(answer.body)) as image:
            assert max(image.size) == min(side or 640, max(record.width, record.height))
    unknown = ask(f"{running.url}/v1/image", image_id="nobody")
    assert (unknown.status, reason(unknown)) == (404, "unknown_image")


def test_places_are_an_even_sample_of_the_store(running: Running, engine: QueryEngine) -> None:
    everyone = engine.store.places(48)
    (record,) = engine.store.get([everyone[0]["image_id"]])
    names = ("image_id", "lat", "lon", "utm_e", "utm_n", "utm_zone")
    assert everyone[0] == {name: getattr(record, name) for name in names}
    for limit, step in ((None, 1), (5000, 1), (48, 1), (47, 2), (24, 2), (10, 5), (1, 48)):
        parameters = {} if limit is None else {"limit": limit}
        response = ask(f"{running.url}/v1/places", headers={"x-request-id": "p-1"}, **parameters).json()
        assert response.pop("places") == everyone[::step]
        assert response == {"request_id": "p-1", "store_version": engine.store.version, "total": 48}


def test_info_says_what_is_set(running: Running, engine: QueryEngine) -> None:
    response = ask(f"{running.url}/v1/info", headers={"x-request-id": "i-1"}).json()
    assert response == {
        "request_id": "i-1",
        "model": MODEL,
        "store_version": engine.store.version,
        "rows": 48,
        "topology": "compact",
        "shards": 1,
        "method": "auto",
        "search_method": "exact",
        "score": None,
        "matching": "exact",
        "stop_early": False,
        "rerank_budget_ms": None,
        "precision": "auto",
        "max_body_bytes": 16 << 20,
        "max_candidates": 1000,
        "candidates": 100,
        "max_top_k": 100,
        "request_timeout_s": 30.0,
        "tiles": None,
    }


def test_health_and_readiness_and_metrics_are_there(running: Running, city_store: CityStore) -> None:
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        answer = ask(running.url + path)
        assert (answer.status, answer.json()) == (200, {"status": status})

    def count(sample: str) -> float:
        answer = ask(f"{running.url}/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        lines = answer.body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(sample))

    answered = 'placeray_request_seconds_count{replica="test",route="/v1/query",status="200"}'
    refused = 'placeray_errors_total{reason="unsupported_media_type",replica="test"}'
    before = count(answered), count(refused)
    photo = city_store.queries[0].read_bytes()
    for _ in range(3):
        ask(f"{running.url}/v1/query", "POST", body=photo, kind=JPEG)
    ask(f"{running.url}/v1/query", "POST", body=photo, kind="text/plain")
    assert (count(answered), count(refused)) == (before[0] + 3, before[1] + 1)
    assert count("placeray_index_rows{") == 48
    assert count("placeray_ready{") == 1


def test_page_files_are_sent_with_their_headers(running: Running) -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "png": "image/png", "html": "text/html"}
    for path in ["/", *static_paths()]:
        answer = ask(running.url + path)
        assert answer.status == 200, path
        assert answer.body
        kind = kinds.get("html" if path == "/" else path.rsplit(".", 1)[-1])
        assert kind is None or answer.headers["content-type"].startswith(kind)
        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["img-src"] == "'self' blob: data:"
        assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for ranges in ("bytes=abc", "bytes=999999999-", "bytes=0-1,3-4", "bytes=0-0"):
            part = ask(running.url + path, headers={"range": ranges})
            assert (part.status, part.body) == (200, answer.body), ranges
        head = ask(running.url + path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.body))
    assert b"<script" in ask(f"{running.url}/").body
    assert len(static_paths()) > 8


def test_other_paths_and_methods_get_the_one_error_shape(running: Running) -> None:
    for path in (
        "/nobody",
        "/v1",
        "/v1/",
        "/v1/query/",
        "/healthz/",
        "/web",
        "/web/",
        "/web/leaflet/",
        "/docs",
    ):
        answer = ask(running.url + path)
        assert (answer.status, reason(answer)) == (404, "not_found"), path
    allowed = {
        **dict.fromkeys(["/v1/query", "/v1/matches", "/v1/track"], "POST"),
        **dict.fromkeys(["/v1/image", "/v1/places", "/v1/info", "/healthz", "/readyz", "/metrics"], "GET"),
    }
    for path, allow in allowed.items():
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - {allow}:
            answer = ask(running.url + path, method)
            assert (answer.status, reason(answer)) == (405, "method_not_allowed"), (method, path)
            assert answer.headers["allow"] == allow


@dataclass(frozen=True)
class Altered:
    """A service over a store to which four rows were added."""

    running: Running
    folder: Path
    utm_only: str
    gone: str
    changed: str
    no_picture: str


@pytest.fixture(scope="module")
def altered(city_store: CityStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Altered]:
    tmp = tmp_path_factory.mktemp("altered")
    folder = tmp / "store"
    shutil.copytree(city_store.uri, folder)
    store = Store.open(folder)
    rows = copy_rows(store, "-copy").slice(0, 4)
    uris = [str(tmp / f"{i}.jpg") for i in range(4)]
    for uri, source in zip(uris[:3], rows["uri"].to_pylist(), strict=False):
        shutil.copy(source, uri)
    Path(uris[3]).mkdir()
    nowhere = pa.array([None] * 4, pa.float64())
    for name, column in (("uri", pa.array(uris)), ("lat", nowhere), ("lon", nowhere)):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    with store.lease():
        store.commit(rows)
    keys = rows["image_id"].to_pylist()
    Path(uris[1]).unlink()
    with open(uris[2], "ab") as file:
        file.write(b"!")
    with running_service(str(folder), refresh_s=0.25) as service:
        yield Altered(service, folder, *keys)


def test_a_record_with_utm_alone_is_answered_with_nulls(altered: Altered) -> None:
    url, photo = (
        altered.running.url,
        ask(f"{altered.running.url}/v1/image", image_id=altered.utm_only, max_side_px=2048),
    )
    assert photo.status == 200
    answer = ask(f"{url}/v1/query", "POST", body=photo.body, kind=JPEG, top_k=100)
    match = next(m for m in answer.json()["matches"] if m["image_id"] == altered.utm_only)
    assert (match["lat"], match["lon"]) == (None, None)
    assert match["utm_e"] > 0
    assert match["utm_n"] > 0
    place = next(p for p in ask(f"{url}/v1/places").json()["places"] if p["image_id"] == altered.utm_only)
    assert (place["lat"], place["lon"], place["utm_e"]) == (None, None, match["utm_e"])


@pytest.mark.parametrize("which", ["gone", "changed", "no_picture"])
def test_a_photo_that_is_not_what_was_indexed_is_unavailable(
    altered: Altered, city_store: CityStore, which: str
) -> None:
    image_id = getattr(altered, which)
    answer = ask(f"{altered.running.url}/v1/image", image_id=image_id)
    assert (answer.status, reason(answer)) == (404, "image_unavailable")
    # What was indexed of it still answers.
    photo = city_store.queries[0].read_bytes()
    lines = ask(f"{altered.running.url}/v1/matches", "POST", body=photo, kind=JPEG, image_id=image_id)
    assert lines.status == 200


def test_damaged_features_degrade_the_answer_and_then_a_lost_store_refuses_it(
    altered: Altered, city_store: CityStore
) -> None:
    url, photo = altered.running.url, city_store.queries[5].read_bytes()
    for shard in (altered.folder / "features").glob("*.parquet"):
        content = bytearray(shard.read_bytes())
        content[1000 : len(content) // 2] = bytes(len(content) // 2 - 1000)
        shard.write_bytes(content)
    with running_service(str(altered.folder), refresh_s=0.25) as fresh:  # nothing is in its cache
        plain = ask(f"{fresh.url}/v1/query", "POST", body=photo, kind=JPEG, top_k=52, rerank="false").json()
        answer = ask(f"{fresh.url}/v1/query", "POST", body=photo, kind=JPEG, top_k=52)
        assert answer.status == 200
        response = answer.json()
        assert (plain["degraded"], response["degraded"]) == (False, True)
        assert len(response["matches"]) == 52
        lost = [m for m in response["matches"] if m["mutual_matches"] is None]
        assert lost
        order = [m["image_id"] for m in plain["matches"]]
        assert [m["rank"] for m in lost] == [order.index(m["image_id"]) + 1 for m in lost], "keep their place"
        assert b'placeray_degraded_answers_total{replica="test"} 1.0' in ask(f"{fresh.url}/metrics").body
        lines = ask(f"{fresh.url}/v1/matches", "POST", body=photo, kind=JPEG, image_id=lost[0]["image_id"])
        assert (lines.status, lines.json()["pairs"]) == (200, [])

    shutil.rmtree(altered.folder)
    wait_for(lambda: ask(f"{url}/readyz").status == 503, patience_s=10)
    assert ask(f"{url}/healthz").status == 200
    assert ask(f"{url}/v1/info").status == 200
    for path in ("/v1/places", f"/v1/image?image_id={altered.utm_only}", "/v1/image?image_id=nobody"):
        answer = ask(url + path)
        assert (answer.status, reason(answer)) == (503, "store_unavailable"), path
    for path in ("/v1/query", "/v1/matches?image_id=nobody"):
        answer = ask(url + path, "POST", body=photo, kind=JPEG)
        assert (answer.status, reason(answer)) == (503, "store_unavailable"), path


def test_page_allows_pictures_of_the_tile_server_only(city_store: CityStore) -> None:
    tiles = "https://{s}.tile.example.org:8443/{z}/{x}/{y}.png"
    with running_service(city_store.uri, tiles=tiles, tiles_attribution="© x") as service:
        policy = ask(f"{service.url}/").headers["content-security-policy"]
        assert "img-src 'self' blob: data: https://*.tile.example.org:8443;" in policy
        assert ask(f"{service.url}/v1/info").json()["tiles"] == {"url": tiles, "attribution": "© x"}

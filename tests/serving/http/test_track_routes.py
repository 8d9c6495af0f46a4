"""POST /v1/track: photos, earlier answers, what is refused, and that nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from serving.client import PlaceClient
from serving.tracks import request as request_module
from tests.support.city_store import CityStore
from tests.support.http_client import Answer, ask, multipart, reason
from tests.support.service_server import Running, running_service

JSON = "application/json"
FORM = "multipart/form-data; boundary=b0undary"
PART = 'Content-Disposition: form-data; name="image"; filename="a.jpg"'
TOKENS = {"reads": "read", "counts": "metrics"}


def post(url: str, value: Any, headers: dict[str, str] | None = None, **parameters: Any) -> Answer:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ask(f"{url}/v1/track", "POST", body=body, kind=JSON, headers=headers, **parameters)


@pytest.fixture(scope="module")
def answers(running: Running, city_store: CityStore) -> list[dict[str, Any]]:
    """Earlier answers to six stored photos in the order of the drive that took them."""
    asked = []
    for path in city_store.database[:6]:
        sent = {"top_k": "20", "candidates": "48"}
        asked.append(
            ask(f"{running.url}/v1/query", "POST", body=path.read_bytes(), kind="image/jpeg", **sent).json()
        )
    return asked


def test_earlier_answers_make_a_track(running: Running, answers: list[dict[str, Any]]) -> None:
    answer = post(running.url, {"frames": answers}, headers={"x-request-id": "t-1"})
    assert answer.status == 200
    track = answer.json()
    assert track["request_id"] == "t-1"
    assert track["store_version"] == answers[0]["store_version"]
    assert track["lag"] == 10
    assert track["summary"]["frames"] == len(answers) == len(track["frames"])
    for frame, asked in zip(track["frames"], answers, strict=True):
        assert frame["state"] in ("known", "unsure", "lost")
        assert 0 <= frame["probability"] <= 1
        assert 0 <= frame["lost"] <= 1
        if frame["state"] == "known":
            first = asked["matches"][0]
            assert abs(frame["position"]["utm_e"] - first["utm_e"]) < 60
            assert frame["position"]["utm_zone"] == "33U"
            assert frame["radius_m"] > 0
    assert track["summary"]["known"] >= 4, "stored photos are found"
    assert post(running.url, {"frames": answers}).json()["frames"] == track["frames"], "nothing is kept"


def test_frames_without_an_answer_and_odometry(running: Running, answers: list[dict[str, Any]]) -> None:
    frames = [*answers[:3], None, *answers[3:]]
    odometry = [None, {"distance_m": 0, "turn_deg": 120}, *[{"distance_m": 5.0}] * 5]
    track = post(running.url, {"frames": frames, "odometry": odometry}, lag="2").json()
    assert len(track["frames"]) == 7
    assert track["lag"] == 2
    steady = post(running.url, {"frames": frames}, speed_m_per_s="5", fps="1").json()
    assert steady["frames"] != track["frames"]


def test_photos_make_the_track_of_their_answers(running: Running, city_store: CityStore) -> None:
    photos = [path.read_bytes() for path in city_store.database[:3]]
    body = multipart(*[(PART, photo) for photo in (*photos[:2], b"no photo", photos[2])])
    sent = {"candidates": "48"}
    answer = ask(f"{running.url}/v1/track", "POST", body=body, kind=FORM, **sent)
    assert answer.status == 200
    frames = answer.json()["frames"]
    assert [frame["error"]["reason"] if "error" in frame else None for frame in frames] == [
        None,
        None,
        "not_an_image",
        None,
    ]
    asked = [
        ask(f"{running.url}/v1/query", "POST", body=photo, kind="image/jpeg", top_k="48", **sent).json()
        for photo in photos
    ]
    expected = post(running.url, {"frames": [*asked[:2], None, asked[2]]}).json()["frames"]
    for frame, other in zip(frames, expected, strict=True):
        assert frame["image_id"] == other["image_id"]
        assert frame["probability"] == pytest.approx(other["probability"], abs=0.05)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        {},
        {"frames": []},
        {"frames": [{"matches": []}]},
        {"frames": [{"store_version": "3", "matches": []}]},
        {"frames": [{"store_version": 0, "matches": []}]},
        {"frames": [{"store_version": 1, "matches": [{"image_id": "a"}]}]},
        {"frames": [{"store_version": 1, "matches": [{"image_id": "", "similarity": 0.5}]}]},
        {"frames": [{"store_version": 1, "matches": [{"image_id": "a", "similarity": 9}]}]},
        b'{"frames":[{"store_version":1,"matches":[{"image_id":"a","similarity":NaN}]}]}',
        b'{"frames":[{"store_version":1,"matches":[{"image_id":"a","similarity":0,"score":1e400}]}]}',
        {"frames": [None], "odometry": [None, None]},
        {"frames": [None], "odometry": [{"distance_m": -1}]},
        {"frames": [None] * (request_module.MAX_ANSWERS + 1)},
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_drive_is_refused(running: Running, value: Any) -> None:
    answer = post(running.url, value)
    assert (answer.status, reason(answer)) == (422, "bad_track")


def test_other_bodies_and_parameters_are_refused(running: Running, city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    for kind, status in (("image/jpeg", 415), ("text/plain", 415)):
        assert ask(f"{running.url}/v1/track", "POST", body=photo, kind=kind).status == status
    many = multipart(*[(PART, b"x")] * (request_module.MAX_PHOTOS + 1))
    assert ask(f"{running.url}/v1/track", "POST", body=many, kind=FORM).status == 400
    for name, number in (
        ("fps", "0"),
        ("fps", "nan"),
        ("speed_m_per_s", "-1"),
        ("lag", "-1"),
        ("lag", "1e9"),
    ):
        assert post(running.url, {"frames": [None]}, **{name: number}).status == 422, (name, number)


def test_versions_that_are_gone_are_a_conflict(running: Running) -> None:
    answer = post(running.url, {"frames": [{"store_version": 2**40, "matches": []}]})
    assert (answer.status, reason(answer)) == (409, "version_gone")


def test_images_that_are_not_stored_say_nothing(running: Running, answers: list[dict[str, Any]]) -> None:
    foreign = {"image_id": "../../etc/passwd", "similarity": 0.9, "score": 90.0, "score_kind": "count"}
    frame = {"store_version": answers[0]["store_version"], "matches": [{**foreign, "lat": 1.0, "lon": 2.0}]}
    (tracked,) = post(running.url, {"frames": [frame]}).json()["frames"]
    assert tracked["position"] is None
    assert tracked["image_id"] is None


def test_positions_that_a_client_sends_are_not_believed(
    running: Running, answers: list[dict[str, Any]]
) -> None:
    moved = [
        {
            **answer,
            "matches": [
                {**match, "lat": 91, "lon": "x", "utm_e": -6e8, "utm_n": None} for match in answer["matches"]
            ],
        }
        for answer in answers
    ]
    believed = post(running.url, {"frames": answers}).json()["frames"]
    assert post(running.url, {"frames": moved}).json()["frames"] == believed


@pytest.fixture(scope="module")
def closed(city_store: CityStore) -> Iterator[Running]:
    with running_service(city_store.uri, tokens={"r" * 32: "read", "m" * 32: "metrics"}) as service:
        yield service


def test_only_tokens_that_read_may_follow_drives(closed: Running) -> None:
    for token, status in ((None, 401), ("m" * 32, 403), ("r" * 32, 200)):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        assert post(closed.url, {"frames": [None]}, headers=headers).status == status


def test_the_client_follows_a_drive(running: Running, city_store: CityStore) -> None:
    client = PlaceClient(running.url)
    track = client.track(city_store.database[:4], candidates=48, speed_m_per_s=5.0)
    assert len(track["frames"]) == 4
    assert track["summary"]["known"] >= 2
    broken = client.track([city_store.database[0], b"no photo", city_store.database[1]], candidates=48)
    assert broken["frames"][1]["error"]["reason"] == "not_an_image"

"""The OpenAPI description against the running service: schemathesis makes requests out of it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema

from storage.store import Store
from tests.support.asgi_client import ADMIN_TOKEN, TOKENS
from tests.support.city_store import CityStore
from tests.support.http_client import ask
from tests.support.service_server import Running, running_service

SEED = 20
OPERATIONS = {
    "POST /v1/query",
    "POST /v1/matches",
    "POST /v1/track",
    "GET /v1/image",
    "GET /v1/places",
    "GET /v1/info",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
}
PRIORS = (
    *("near", "radius_m", "within", "heading", "heading_tolerance", "taken_after", "taken_before"),
    *("tag", "prior"),
)
GUARDED = {label for label in OPERATIONS if "/v1/" in label or "/metrics" in label}


@pytest.fixture(scope="module", autouse=True)
def photos(city_store: CityStore) -> None:
    """Replace generated photos by real ones, which no schema can describe."""
    for kind in ("JPEG", "PNG", "WEBP"):
        encoded = []
        for path in city_store.queries[:4]:
            buffer = io.BytesIO()
            with Image.open(path) as image:
                image.resize((64, 48)).save(buffer, kind)
            encoded.append(buffer.getvalue())
        schemathesis.openapi.media_type(f"image/{kind.lower()}", st.sampled_from(encoded))
    schemathesis.openapi.media_type("application/octet-stream", st.sampled_from(encoded))


def described(url: str, headers: dict[str, str] | None = None, **options: Any) -> BaseSchema:
    headers = headers or {}
    config = SchemathesisConfig.from_dict({"seed": SEED, "headers": headers, **options})
    return schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers, config=config)


def operations(schema: BaseSchema) -> Iterator[Any]:
    for result in schema.get_all_operations():
        yield result.ok()


def run_engine(schema: BaseSchema) -> tuple[list[str], Counter[tuple[str, int]]]:
    """Run schemathesis with all of its checks; return the failures and the statuses seen."""
    failures: list[str] = []
    seen: Counter[tuple[str, int]] = Counter()
    for event in engine.from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            failures.append(repr(event))
        if isinstance(event, events.ScenarioFinished):
            for interaction in event.recorder.interactions.values():
                if interaction.response is not None:
                    seen[event.recorder.label, interaction.response.status_code] += 1
            for checks in event.recorder.checks.values():
                failures += [
                    f"{event.recorder.label}: {c.name}: {c.failure_info}" for c in checks if c.failure_info
                ]
    return failures, seen


def phases(*, coverage: bool, examples: int) -> dict[str, Any]:
    """Settings of the engine: whether every odd value of every parameter is tried, and how many random ones.

    No schema can say that bytes are a photo or which images exist: accepted requests are tested separately.
    """
    fuzzing = {"generation": {"max-examples": examples}}
    off = {"enabled": False}
    chosen = {"examples": off, "stateful": off, "coverage": {"enabled": coverage}, "fuzzing": fuzzing}
    # A parameter that is far too long is refused with the headers, before it is compared with its schema.
    refused = [*map(str, (400, 401, 403, 404, 405, 406, 409, 415, 422, 428, 429, 431)), "5xx"]
    checks = {"positive_data_acceptance": off, "negative_data_rejection": {"expected-statuses": refused}}
    return {"phases": chosen, "checks": checks}


def test_description_covers_every_route_of_the_api(running: Running) -> None:
    schema = described(running.url)
    assert {operation.label for operation in operations(schema)} == OPERATIONS
    raw = ask(f"{running.url}/openapi.json").json()
    assert "security" not in raw
    for path, item in raw["paths"].items():
        for operation in item.values():
            errors = {status: body for status, body in operation["responses"].items() if status >= "400"}
            assert "500" in errors
            for error in errors.values():
                ref = error["content"]["application/json"]["schema"]["$ref"]
                assert ref == "#/components/schemas/ErrorAnswer", path
            if "503" in errors:
                assert "Retry-After" in errors["503"]["headers"]


@pytest.mark.integration
@pytest.mark.parametrize(
    # A track takes the parameters of a query: their odd values cost seconds a second time.
    "left_out",
    [{"POST /v1/track"}, pytest.param(set(), marks=pytest.mark.long)],
    ids=["all but tracks", "all"],
)
def test_service_does_what_its_description_says(running: Running, left_out: set[str]) -> None:
    schema = described(running.url, **phases(coverage=True, examples=4))
    for label in left_out:
        schema = schema.exclude(name=label)
    failures, seen = run_engine(schema)
    assert not failures, "\n".join(failures)
    assert {label for label, _ in seen} == OPERATIONS - left_out
    assert {status for _, status in seen} >= {200, 404, 405, 415, 422}
    assert not [status for _, status in seen if status >= 500]


@pytest.mark.integration
def test_service_with_tokens_does_what_its_description_says(city_store: CityStore) -> None:
    with running_service(city_store.uri, tokens=TOKENS) as closed:
        authorized = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        schema = described(closed.url, authorized, **phases(coverage=False, examples=8))
        raw = ask(f"{closed.url}/openapi.json", headers=authorized).json()
        failures, seen = run_engine(schema)
    assert not failures, "\n".join(failures)
    assert raw["security"] == [{"bearer": ["admin"]}]
    needed = {
        path: operation["security"] for path, item in raw["paths"].items() for operation in item.values()
    }
    assert needed == {
        "/healthz": [],
        "/readyz": [],
        "/metrics": [{"bearer": ["metrics"]}],
        **{path: [{"bearer": ["read"]}] for path in needed if path.startswith("/v1/")},
    }
    assert {label for label, status in seen if status == 401} >= GUARDED
    assert {label for label, status in seen if status == 200} >= {"GET /v1/places", "GET /v1/info"}


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_right_requests_are_accepted_and_answered_as_described(
    running: Running, city_store: CityStore, label: str
) -> None:
    schema = described(running.url)
    operation = next(one for one in operations(schema) if one.label == label)
    store = Store.open(city_store.uri)
    ids, version = [place["image_id"] for place in store.places(48)], store.version
    seen: Counter[int] = Counter()
    kinds: set[str | None] = set()

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), st.sampled_from(ids))
    def answered(case: schemathesis.Case, image_id: str) -> None:
        if "image_id" in (case.query or {}):
            case.query["image_id"] = image_id
        for name in ("max_wrong", *PRIORS):  # the store was never calibrated; no schema tells what GeoJSON is
            (case.query or {}).pop(name, None)
        assume(label.startswith("GET") or case.body)
        if case.media_type == "multipart/form-data":
            assume(label != "POST /v1/track")  # a list of files is generated as text
            parts = case.body.values() if isinstance(case.body, dict) else ()
            assume(
                sum(len(part) if isinstance(part, list) else 1 for part in parts) <= 8
            )  # as many are accepted
        if isinstance(case.body, dict) and "frames" in case.body:
            for frame in filter(None, case.body["frames"]):
                frame["store_version"] = version  # which no schema can tell
            case.body.pop("odometry", None)  # nor that there is one for each frame
        response = case.call()
        case.validate_response(response)
        seen[response.status_code] += 1
        kinds.add(case.media_type)

    answered()
    assert set(seen) == {200}, f"seed {SEED}"
    if label.startswith("POST"):
        assert len(kinds) >= (1 if label == "POST /v1/track" else 3)

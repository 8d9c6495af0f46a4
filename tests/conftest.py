"""Fixtures shared by all tests, and the markers that follow from them.

A test that uses the fixture `local_ray` gets the marker `ray`, and one that uses `browser` the marker
`browser`; `site`, which builds the documentation, brings `integration`. A test that starts Ray or Chromium in
another way carries the marker itself. Without the marker `ray.init` raises, so that `make test-quick` stays
quick. Files with tests of many seconds come first: the processes that share the files end together then.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

import models  # noqa: F401  (before torch: sets how its threads wait)
from tests.support.bucket_fixtures import (  # noqa: F401
    azurite_url,
    bucket_uri,
    credentials,
    faulty,
    faulty_objects,
    moto_proxy,
    moto_url,
    objects,
    real_uri,
    seaweed_url,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.city_store import CityStore
    from tests.support.service_server import Running

MANY_SECONDS = ("integration", "browser", "ray")
NAMES_RAY = re.compile(r"local_ray|mark\.ray")  # by which the Makefile finds files with such tests
MARKER_BY_FIXTURE = {"local_ray": "ray", "browser": "browser", "site": "integration"}


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, marker in MARKER_BY_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}
    for path in with_ray:
        if not NAMES_RAY.search(path.read_text()):
            raise pytest.UsageError(f"{path} has a test with Ray, and does not name local_ray or mark.ray")
    slow = {item.path for item in items if any(map(item.get_closest_marker, MANY_SECONDS))}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _caches_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Answers that evaluations remember go to a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _interrupts_arrive() -> Iterator[None]:
    """SIGINT reaches this process and those it starts, although shells let background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_ray_without_marker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("ray") is None:
        monkeypatch.setattr("ray.init", _refuse_ray)


def _refuse_ray(*args: object, **options: object) -> NoReturn:
    pytest.fail("This test starts Ray: use the fixture local_ray, or mark the test with pytest.mark.ray.")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One small Ray for all tests."""
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless; the test is skipped where there is none."""
    # Not for the whole session: Playwright keeps an event loop running, and asyncio.run refuses to run in it.
    from tests.support.page_browser import launched

    with launched() as started:
        yield started


@pytest.fixture(scope="session")
def city_store(tmp_path_factory: pytest.TempPathFactory) -> CityStore:
    """An indexed generated city of 48 photos and 16 queries; read only."""
    from tests.support.city_store import make_city_store

    return make_city_store(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="session")
def running(city_store: CityStore) -> Iterator[Running]:
    """The service over `city_store`, behind a real HTTP server, without tokens and without tiles."""
    from tests.support.service_server import running_service

    with running_service(city_store.uri) as service:
        yield service


@pytest.fixture(scope="session")
def service_url(running: Running) -> str:
    """The URL of `running`."""
    return running.url

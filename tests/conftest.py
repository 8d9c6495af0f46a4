"""Fixtures shared by all tests: one small Ray for the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import models  # noqa: F401  (before torch: sets how its threads wait)

if TYPE_CHECKING:
    from tests.support.city_store import CityStore
    from tests.support.service_server import Running


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
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


@pytest.fixture(scope="session")
def city_store(tmp_path_factory: pytest.TempPathFactory) -> CityStore:
    """A drawn city of 48 photos and 16 queries, indexed; for reading only."""
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
    """Where `running` listens."""
    return running.url

"""Buckets on a real server, each test in a prefix of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.objects.bucket import BucketObjects
from storage.objects.bucket_path import BucketPath
from storage.objects.location import objects_of, open_location
from storage.objects.protocol import ObjectStore
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.object_servers import (
    AZURITE_ACCOUNT,
    AZURITE_KEY,
    ENVIRONMENT,
    azurite_server,
    moto_server,
    seaweed_server,
)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(scope="session")
def seaweed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as url:
        yield url


@pytest.fixture(scope="session")
def azurite_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite_server(tmp_path_factory.mktemp("azurite")) as url:
        yield url


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket_uri(moto_url: str, credentials: None) -> str:
    return f"s3://placeray/{uuid.uuid4().hex}?endpoint={moto_url}"


@pytest.fixture(scope="session")
def moto_proxy(moto_url: str) -> Iterator[FaultProxy]:
    with fault_proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def faulty(moto_proxy: FaultProxy, credentials: None) -> Iterator[FaultProxy]:
    moto_proxy.clear()
    yield moto_proxy
    moto_proxy.clear()


@pytest.fixture
def faulty_objects(faulty: FaultProxy) -> BucketObjects:
    location = open_location(f"s3://placeray/{uuid.uuid4().hex}", {"endpoint": faulty.url, "timeout_s": "1"})
    assert isinstance(location, BucketPath)
    return location.objects


@pytest.fixture(params=["folder", "bucket"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Each test runs over a folder and over a bucket."""
    make: dict[str, Callable[[], str]] = {
        "folder": lambda: str(tmp_path / "objects"),
        "bucket": lambda: str(request.getfixturevalue("bucket_uri")),
    }
    return objects_of(open_location(make[request.param]()))


@pytest.fixture(params=["SeaweedFS", "Azurite"])
def real_uri(request: pytest.FixtureRequest, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix on a real server."""
    name = uuid.uuid4().hex
    if request.param == "SeaweedFS":
        return f"s3://placeray/{name}?endpoint={request.getfixturevalue('seaweed_url')}"
    url = request.getfixturevalue("azurite_url")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
    return f"az://placeray/{name}?account_name={AZURITE_ACCOUNT}&endpoint={url}"

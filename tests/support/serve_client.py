"""The service on Ray Serve for tests, and a client for it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from serving.app import bind, checked
from serving.settings import read_settings
from tests.support.ray_head import free_port

PATIENCE_S = 90.0
LOGGING = {"log_level": "ERROR", "enable_access_log": False}
_names = itertools.count()


@contextmanager
def serve_started(**http: Any) -> Iterator[str]:
    """Start Serve on the connected Ray; yields its URL."""
    from ray import serve

    port = free_port()
    options = {"host": "127.0.0.1", "port": port, "request_timeout_s": 60, **http}
    serve.start(proxy_location="HeadOnly", http_options=options, logging_config=LOGGING)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


@contextmanager
def deployed(store_uri: str, **settings: Any) -> Iterator[str]:
    """Deploy the service; yields the application's name."""
    from ray import serve

    chosen = checked(read_settings({"store": store_uri, "tiles": "", **settings}))
    name = f"placeray-{next(_names)}"
    serve.run(bind(chosen, {}), name=name, route_prefix="/", logging_config=LOGGING)
    try:
        yield name
    finally:
        serve.delete(name)


def query(url: str, photo: bytes, **parameters: Any) -> requests.Response:
    return requests.post(
        f"{url}/v1/query",
        params=parameters,
        data=photo,
        headers={"content-type": "image/jpeg"},
        timeout=PATIENCE_S,
    )


def wait_for(condition: Any, *, patience_s: float = PATIENCE_S) -> float:
    """Wait until `condition()` is true; return the seconds waited."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < patience_s, "it did not come true"
        time.sleep(0.1)
    return time.monotonic() - started

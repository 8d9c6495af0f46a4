"""The service behind the front and a real server on loopback, without Ray, for one test or all of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from serving.gallery import Gallery
from serving.http.front import Front, FrontSettings
from serving.http.protocol import BoundedProtocol
from serving.http.routes import build_guarded
from serving.http.tokens import TokenTable
from serving.metrics import Metrics
from serving.places.places import Places
from serving.service import Service
from serving.settings import read_settings
from serving.stages.extract import open_extract_worker
from serving.stages.local import LocalStages
from serving.stages.rerank import open_rerank_worker
from serving.stages.search import open_search_worker
from storage.search.partition import WHOLE_INDEX
from storage.store import Store

PATIENCE_S = 30.0  # ends a hanging test


@dataclass(frozen=True)
class Running:
    """A running service."""

    url: str
    service: Service


@contextmanager
def running_service(
    store_uri: str, *, tokens: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[Running]:
    """Serve a store in a thread of its own, in topology `compact`."""
    card = Store.open(store_uri).card
    chosen = read_settings({"store": store_uri, "model_name": card.model, "tiles": "", **settings})
    listener = socket.create_server(("127.0.0.1", 0))
    started: list[Service] = []
    up = threading.Event()
    done: list[uvicorn.Server] = []

    async def serve() -> None:
        store = Store.open(store_uri)
        gallery = Gallery(store, refresh_s=chosen.refresh_s)
        stages = LocalStages(
            open_extract_worker(chosen), open_search_worker(chosen, WHOLE_INDEX), open_rerank_worker(chosen)
        )
        service = Service(chosen, stages, gallery, Metrics("test"), Places(store))
        guarded = build_guarded(service, tokens=tokens or {}, behind_serve=False)
        digests = TokenTable(tokens or {}).digests
        app = Front(guarded, settings=FrontSettings(digests=digests))
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=BoundedProtocol,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        started.append(service)
        done.append(server)
        up.set()
        try:
            await server.serve([listener])
        finally:
            await stages.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(PATIENCE_S)
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", started[0])
    finally:
        if done:
            done[0].should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
    assert not thread.is_alive()

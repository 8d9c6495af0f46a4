"""Replicas of the service: one class per deployment.

Expected errors are returned as `Refusal` values, not raised: Ray would wrap each and log its traceback. Each
replica imports only what it runs: a Searcher does without torch, which takes seconds and 300 MB to load.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.handle import DeploymentHandle

from serving.errors import Refusal, refusal_of
from serving.gallery import Gallery
from serving.http.guard import Guard
from serving.http.routes import build_guarded
from serving.http.tokens import TokenTable
from serving.logs import log_json
from serving.metrics import Metrics
from serving.places.places import Places
from serving.service import Service
from serving.settings import ServeSettings
from serving.stages.local import LocalStages
from serving.stages.messages import Counted, Descriptor, Extracted, IndexStatus, Searched
from serving.stages.protocol import Stages
from serving.stages.remote import RemoteStages
from serving.stages.search import open_search_worker
from storage.records import ImageRecord
from storage.search.partition import WHOLE_INDEX, Partition
from storage.search.row_filter import RowFilter
from storage.store import Store

__all__ = [
    "ExtractorReplica",
    "IngressReplica",
    "RerankerReplica",
    "SearcherReplica",
]

Result = TypeVar("Result")


class ExtractorReplica:
    """Runs the model."""

    def __init__(self, settings: ServeSettings) -> None:
        from serving.stages.extract import open_extract_worker

        _start_replica(settings)
        self._worker = open_extract_worker(settings)

    async def extract(self, image: bytes, timeout_s: float) -> Extracted | Refusal:
        """See `ExtractWorker.extract`."""
        return await _refused(self._worker.extract(image, timeout_s=timeout_s))


class SearcherReplica:
    """Searches one partition of the index."""

    def __init__(self, settings: ServeSettings, number: int) -> None:
        _start_replica(settings)
        self._worker = open_search_worker(settings, Partition(number, settings.shards))

    async def search(
        self,
        descriptor: Descriptor,
        k: int,
        version: int | None,
        within: RowFilter | None,
        timeout_s: float,
    ) -> Searched | Refusal:
        """See `SearchWorker.search`."""
        return await _refused(
            self._worker.search(descriptor, k=k, version=version, within=within, timeout_s=timeout_s)
        )

    async def status(self) -> IndexStatus:
        """See `SearchWorker.status`."""
        return self._worker.status


class RerankerReplica:
    """Counts mutual nearest neighbours."""

    def __init__(self, settings: ServeSettings) -> None:
        from serving.stages.rerank import open_rerank_worker

        _start_replica(settings)
        self._worker = open_rerank_worker(settings)

    async def count(
        self,
        features: NDArray[np.float32],
        records: Sequence[ImageRecord],
        min_candidates: int,
        timeout_s: float,
    ) -> Counted | Refusal:
        """See `RerankWorker.count`."""
        return await _refused(
            self._worker.count(features, records, min_candidates=min_candidates, timeout_s=timeout_s)
        )

    async def lines(
        self, features: NDArray[np.float32], record: ImageRecord, timeout_s: float
    ) -> list[list[float]] | Refusal:
        """See `RerankWorker.lines`."""
        return await _refused(self._worker.lines(features, record, timeout_s=timeout_s))


class IngressReplica:
    """Serves HTTP: routes and guard; with topology `compact` it runs all stages too."""

    def __init__(
        self,
        settings: ServeSettings,
        tokens: TokenTable | None,
        extractor: DeploymentHandle[Any] | None = None,
        searchers: Sequence[DeploymentHandle[Any]] = (),
        reranker: DeploymentHandle[Any] | None = None,
    ) -> None:
        name = _start_replica(settings)
        metrics = Metrics(name)
        stages: Stages
        if extractor is None or reranker is None:
            stages = _local_stages(settings)
        else:
            stages = RemoteStages(extractor, searchers, reranker, metrics)
        store = Store.open(settings.store, at=settings.at)
        gallery = Gallery(store, refresh_s=settings.refresh_s, max_pixels=settings.max_pixels)
        self._tokens = tokens
        self._service = Service(settings, stages, gallery, metrics, Places(store))

    def __serve_build_asgi_app__(self) -> Guard:
        """Return the ASGI application."""
        return build_guarded(self._service, tokens=self._tokens, behind_serve=True)


def _local_stages(settings: ServeSettings) -> LocalStages:
    from serving.stages.extract import open_extract_worker
    from serving.stages.rerank import open_rerank_worker

    extract = open_extract_worker(settings)
    return LocalStages(extract, open_search_worker(settings, WHOLE_INDEX), open_rerank_worker(settings))


def _start_replica(settings: ServeSettings) -> str:
    """Set up the process of a replica; return the replica's name."""
    context = serve.get_replica_context()
    name = f"{context.deployment}#{context.replica_id.unique_id}"
    log_json(replica=name, file=settings.log_file)
    logging.captureWarnings(True)
    _listen_on_loopback()
    return name


def _listen_on_loopback() -> None:
    """Let Serve open this replica's own port on loopback where Ray itself listens on loopback alone.

    Serve opens it on all interfaces, whatever the node's address; other replicas use the node's.
    """
    module: Any = importlib.import_module("ray.serve._private.replica")
    open_port = getattr(module, "add_port_to_grpc_server", None)
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if open_port is not None and ipaddress.ip_address(address).is_loopback:
        module.add_port_to_grpc_server = lambda server, _: open_port(server, f"{address}:0")


async def _refused(result: Awaitable[Result]) -> Result | Refusal:
    try:
        return await result
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None:
            raise
        return refusal

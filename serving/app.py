"""The service as a Ray Serve application, to be named in a Serve config file.

`serving.app:build` takes the settings of `serving.settings` as arguments:

    applications:
      - import_path: serving.app:build
        args: {store: /data/city, topology: split, shards: 4}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client

from models.custom.reference import portable_model
from models.store_fit import fitting_card
from serving.gallery import MAX_QUEUED
from serving.http.front import FrontSettings
from serving.http.guard import MAX_UPLOADS
from serving.http.tokens import TokenTable, require_token_beyond_loopback, tokens_from_environment
from serving.matching_options import default_candidates
from serving.replicas import ExtractorReplica, IngressReplica, RerankerReplica, SearcherReplica
from serving.settings import Scale, ServeSettings, read_settings
from storage.objects.location import location_uri, open_location
from storage.store import Store

__all__ = ["bind", "build", "checked", "cores", "front", "listening"]

# What occupies slots of Serve beside the queries in flight, at most: uploads in progress and stored images
# that are read. The rest is for what is answered at once, health checks above all.
OTHER_SLOTS = MAX_UPLOADS + MAX_QUEUED + 64
# How OpenMP threads wait, see models.runtime.threads; a Ray worker may load torch before this package.
ENVIRONMENT = {"OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"]}


def build(args: dict[str, Any]) -> Application:
    """Build the application from the arguments of a Serve config file.

    Raises:
        InvalidSettings: an argument is unknown or out of bounds.
        StoreError: the store cannot be opened, or was made by another model.
        InsecureBinding: the proxies listen beyond this machine and there is no token.
    """
    tokens = tokens_from_environment(os.environ)
    address = listening()
    if address is not None:
        require_token_beyond_loopback(address[0], tokens)
    return bind(checked(read_settings(args)), tokens)


def listening() -> tuple[str, int] | None:
    """Return host and port of the running Ray Serve; None where none runs."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    return client.http_config.host or "127.0.0.1", int(client.http_config.port)


def checked(settings: ServeSettings) -> ServeSettings:
    """Check that the model fits the store before anything starts, and set the model's name.

    Raises:
        StoreError: the store cannot be opened, or was made by another model.
        UnknownModel, WeightsRejected, WeightsUnavailable: the model cannot be loaded.
    """
    card = Store.open(settings.store, at=settings.at).card
    fitting_card(settings.store, card, settings.model)
    model = None if settings.model is None else portable_model(settings.model, card)
    known = {
        "model": model,
        "model_name": card.model,
        "local_features": card.has_features,
        "store": location_uri(open_location(settings.store)),
        "candidates": min(settings.candidates or default_candidates(card), settings.max_candidates),
    }
    return settings.model_copy(update=known)


def bind(settings: ServeSettings, tokens: Mapping[str, str]) -> Application:
    """Bind the deployments: `Ingress` alone, or with `Extractor`, `Searcher-<number>` and `Reranker`.

    Args:
        settings: Of the service.
        tokens: Role of each bearer token; only digests leave this process. None: no authentication.
    """
    table = TokenTable(tokens) if tokens else None
    slots = settings.max_in_flight + OTHER_SLOTS
    ingress = serve.ingress()(IngressReplica)
    application: Application
    if settings.topology == "compact":
        application = _deployment(ingress, "Ingress", settings.ingress, slots=slots, gpu=True).bind(
            settings, table
        )
        return application
    queue = settings.max_queue + settings.max_batch
    extractor = _deployment(ExtractorReplica, "Extractor", settings.extractor, slots=queue, gpu=True)
    searchers = [
        _deployment(SearcherReplica, f"Searcher-{i}", settings.searcher, slots=max(256, queue)).bind(
            settings, i
        )
        for i in range(settings.shards)
    ]
    reranker = _deployment(RerankerReplica, "Reranker", settings.reranker, slots=queue, gpu=True)
    front = _deployment(ingress, "Ingress", settings.ingress, slots=slots)
    parts = (extractor.bind(settings), searchers, reranker.bind(settings))
    application = front.bind(settings, table, *parts)
    return application


def front(settings: ServeSettings, tokens: Mapping[str, str]) -> FrontSettings:
    """Return the settings of the proxies of a Ray that is started for this service alone.

    Args:
        settings: Of the service.
        tokens: Role of each bearer token; only digests leave this process.
    """
    return FrontSettings(
        digests=TokenTable(tokens).digests,
        max_uploads=MAX_UPLOADS * settings.ingress.max_replicas,
        log_file=settings.log_file,
    )


def cores(settings: ServeSettings) -> float:
    """Return the number of cores that Ray must reserve for a service at its maximum size."""
    roles = [settings.ingress]
    if settings.topology == "split":
        roles += [settings.extractor, settings.reranker, *[settings.searcher] * settings.shards]
    return sum(role.max_replicas * role.num_cpus for role in roles)


def _deployment(kind: type, name: str, scale: Scale, *, slots: int, gpu: bool = False) -> Any:
    options: dict[str, Any] = {
        "num_cpus": scale.num_cpus,
        "num_gpus": _gpus(scale) if gpu else scale.num_gpus or 0,
        "runtime_env": {"env_vars": ENVIRONMENT},
    }
    replicas: dict[str, Any] = {"num_replicas": scale.min_replicas}
    if scale.max_replicas > scale.min_replicas:
        replicas = {
            "autoscaling_config": {
                "min_replicas": scale.min_replicas,
                "max_replicas": scale.max_replicas,
                "target_ongoing_requests": scale.target_ongoing_requests,
            }
        }
    return serve.deployment(
        kind,
        name=name,
        ray_actor_options=options,
        max_ongoing_requests=slots,
        max_queued_requests=slots,
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.5,
        max_surge_percent=_surge_percent(options),
        **replicas,
    )


def _surge_percent(options: dict[str, Any]) -> int:
    """Return how many replicas more than usual a change may start before it stops the old ones.

    New ones are warm before old ones go, where there is room for them; Serve would wait for room for ever.
    """
    free: dict[str, float] = ray.available_resources() if ray.is_initialized() else {}  # type: ignore[no-untyped-call]
    names = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
    return 100 if all(free.get(name, 0.0) >= amount for name, amount in names.items()) else 0


def _gpus(scale: Scale) -> float:
    """Return the GPUs per replica: one where the cluster has several, half of a single one."""
    if scale.num_gpus is not None:
        return scale.num_gpus
    resources: dict[str, float] = ray.cluster_resources() if ray.is_initialized() else {}  # type: ignore[no-untyped-call]
    gpus = resources.get("GPU", 0)
    return min(1, gpus / 2)

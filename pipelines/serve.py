"""Run the service on this machine, or on a running Ray cluster, until it is stopped.

placeray serve --store ~/city
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.defaults import HOST, PORT
from pipelines.first_answer import wait_for_answer
from pipelines.ray_session import check_ray, quiet_stderr, ray_session, starts_own_ray
from serving.http.tokens import require_token_beyond_loopback, tokens_from_environment
from serving.settings import ServeSettings, read_settings
from storage.errors import PlacerayError

__all__ = ["NoPort", "ServiceNotStarted", "serve_store", "settings_of"]

APPLICATION = "placeray"


def settings_of(flags: dict[str, Any]) -> ServeSettings:
    """Make settings from the command line's flags.

    Raises:
        InvalidSettings: a value is out of bounds, or values do not fit together.
    """
    values = {name: value for name, value in flags.items() if name in ServeSettings.model_fields}
    for role in ("ingress", "extractor", "searcher", "reranker"):
        scale: dict[str, Any] = {}
        if f"{role}_replicas" in flags:
            scale["min_replicas"], scale["max_replicas"] = flags[f"{role}_replicas"]
        if f"{role}_gpus" in flags:
            scale["num_gpus"] = flags[f"{role}_gpus"]
        if scale:
            values[role] = scale
    return read_settings(values)


class ServiceNotStarted(PlacerayError):
    """Ray Serve could not start the service."""

    reason = "service_not_started"


class NoPort(PlacerayError):
    """The address to listen on is not available."""

    reason = "no_port"


def serve_store(
    settings: ServeSettings,
    *,
    host: str = HOST,
    port: int = PORT,
    ready: Callable[[str], None] = lambda url: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve a store over HTTP until `stop` is set, or SIGINT or SIGTERM is received.

    Args:
        settings: Settings of the service.
        host: Address to listen on; beyond loopback only with `PLACERAY_TOKENS`.
        port: Port to listen on; 0: any free one.
        ready: Called with the URL once queries are answered.
        stop: Ends the service.

    Raises:
        InsecureBinding, InvalidTokens: see `serving.http.tokens`.
        NoPort: the address is in use, or is not one of this machine.
        InvalidRayAddress, CannotJoinRay, RayWithoutAuthentication, NoRayFolder: see `ray_session`.
        StoreError: the store cannot be opened, or was made by another model.
        UnknownModel, WeightsRejected, WeightsUnavailable: the model cannot be loaded.
        ServiceNotStarted: Ray Serve cannot start it.
        CannotCompile: compilation was requested and is not possible in a replica.
    """
    tokens = tokens_from_environment(os.environ)
    require_token_beyond_loopback(host, tokens)
    check_ray()
    own = starts_own_ray()
    port = _free_port(host, port) if own else port
    # Ray Serve reads settings from the environment when it is first imported.
    from ray import serve

    from models.runtime.compiled import CannotCompile  # loads torch
    from serving.app import bind, checked, cores, front, listening

    settings = checked(settings)
    stop = stop or threading.Event()
    num_cpus = max(os.cpu_count() or 1, math.ceil(cores(settings)))
    # The proxies of a Ray that is started here inherit these; those of a cluster have their own environment.
    proxies = front(settings, tokens).environment()
    with (
        _environment(proxies),
        ray_session(num_cpus=num_cpus, show_logs=not settings.log_file),
        _quiet_serve(),
    ):
        serve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": host,
                "port": port,
                # Longer than the timeouts of the guard and the service, for requests that these miss.
                "request_timeout_s": settings.request_timeout_s + settings.receive_timeout_s + 10,
                "keep_alive_timeout_s": 30,
            },
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        try:
            if listening() != (host, port):
                raise NoPort(
                    "Serve already runs on this cluster with another address: stop it (`serve shutdown`), "
                    "or add the service to it with `serve deploy`"
                )
            try:
                serve.run(
                    bind(settings, tokens),
                    name=APPLICATION,
                    route_prefix="/",
                    logging_config={"log_level": "WARNING", "enable_access_log": False},
                )
            except RuntimeError as error:  # Serve's, without the replica's
                messages = _deployment_messages(serve)
                if CannotCompile.__name__ in messages:
                    raise CannotCompile(
                        "the model could not be compiled in a replica: install a C compiler and triton, or "
                        "omit --compile"
                    ) from error
                lines = [line.strip() for line in messages.splitlines() if line.strip()]
                raise ServiceNotStarted(
                    f"Ray Serve could not start the service ({lines[-1][:500] if lines else error}): see the "
                    "logs of Ray Serve, and that the cluster has placeray and can read the store"
                ) from error
            if own:  # the proxy of a cluster may be out of reach from here
                wait_for_answer(host, port)
            ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            with _until_signalled(stop):
                stop.wait()
        finally:
            with quiet_stderr():  # the controller's shutdown is reported as a failed task
                if own:
                    serve.shutdown()  # type: ignore[no-untyped-call]
                else:  # Serve of a cluster may run other applications
                    serve.delete(APPLICATION)


def _deployment_messages(serve: Any) -> str:
    """Return Serve's messages about deployments that could not be started."""
    application = serve.status().applications.get(APPLICATION)
    return " ".join(one.message for one in application.deployments.values()) if application else ""


@contextlib.contextmanager
def _until_signalled(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGINT and SIGTERM, so that the service shuts down in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _quiet_serve() -> Iterator[None]:
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _free_port(host: str, port: int) -> int:
    """Return the port if it is available; Ray Serve would only report that in a log."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return int(trial.getsockname()[1])
    except OSError as error:
        raise NoPort(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --port or --host"
        ) from error

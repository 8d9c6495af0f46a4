"""Joins the cluster that the rule names, or starts a private Ray for one job and ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from pipelines.ray_session.address import cluster_address, joined_already, require_answer
from pipelines.ray_session.environment import (
    LOG_LEVEL,
    RayWithoutAuthentication,
    ray_environment,
    require_authentication,
)
from pipelines.ray_session.folder import base_folders, end_processes_in, private_folder
from pipelines.ray_session.patience import patient_start
from pipelines.ray_session.quiet import plain_messages, quiet_stderr
from storage.errors import PlacerayError

__all__ = ["CannotJoinRay", "CannotStartRay", "check_ray", "ray_session"]

log = logging.getLogger(__name__)


class CannotJoinRay(PlacerayError):
    """The cluster that RAY_ADDRESS names does not answer, or does not accept this process."""

    reason = "cannot_join_ray"


class CannotStartRay(PlacerayError):
    """A Ray of this machine does not come up, as of one that is overloaded or out of memory."""

    reason = "cannot_start_ray"


@contextlib.contextmanager
def ray_session(
    *, num_cpus: int | None = None, object_store_bytes: int = 200 << 20, show_logs: bool = False
) -> Iterator[Any]:
    """Use the Ray of this process, join the cluster of `cluster_address`, or start a private Ray.

    Args:
        num_cpus: CPU cores of a private Ray; default: all of the machine.
        object_store_bytes: Size of a private Ray's object store.
        show_logs: Forward the stderr of workers to this process.

    Yields:
        The `ray` module, connected.

    Raises:
        InvalidRayAddress: RAY_ADDRESS names no cluster that can be joined.
        CannotJoinRay: the cluster cannot be joined.
        CannotStartRay: a private Ray does not come up.
        RayWithoutAuthentication: RAY_AUTH_MODE would switch the authentication of a private Ray off.
        NoRayFolder: a private Ray has no folder for its sockets.
    """
    address = check_ray()
    import ray

    quiet: dict[str, Any] = {"log_to_driver": show_logs, "logging_level": "ERROR"}
    if joined_already():
        _warn_where_open(ray)
        yield ray
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if address is not None:
        _join(ray, address, quiet)
        try:
            _warn_where_open(ray)
            with plain_messages():
                yield ray
        finally:
            _shut_down(ray)
        return
    cores = num_cpus or os.cpu_count()
    options = quiet | {"num_cpus": cores, "object_store_memory": object_store_bytes}
    with _private_ray(ray, options), plain_messages():
        yield ray


def check_ray() -> str | None:
    """Refuse early what `ray_session` would refuse for the environment alone.

    Returns:
        The address of the cluster to join; None where this process is connected already or starts its own.

    Raises:
        InvalidRayAddress, RayWithoutAuthentication, NoRayFolder: see `ray_session`.
    """
    if joined_already():
        return None
    address = cluster_address()
    if address is None:
        require_authentication()
        base_folders()
    return address


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    os.environ.setdefault(LOG_LEVEL, "fatal")  # of native code, which announces each restart on stderr
    try:
        require_answer(address)
        with quiet_stderr():
            ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise CannotJoinRay(
            f"the Ray cluster of RAY_ADDRESS={address} cannot be joined ({_first_line(error)}): see that "
            "it runs and that RAY_AUTH_MODE and its token are the same here, or unset RAY_ADDRESS to run on "
            "this machine"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


@contextlib.contextmanager
def _private_ray(ray: Any, options: dict[str, Any]) -> Iterator[None]:
    """Start a Ray for this process alone, in a folder and with a token that no other user can read."""
    with contextlib.ExitStack() as stack:
        sockets, spilled = base_folders()
        folder = stack.enter_context(private_folder(sockets))
        stack.callback(end_processes_in, folder)
        if spilled != sockets:
            options["object_spilling_directory"] = str(stack.enter_context(private_folder(spilled)))
        stack.callback(_read_settings_anew, ray)
        stack.enter_context(ray_environment(folder))
        stack.enter_context(_on_loopback(ray))
        _read_settings_anew(ray)
        stack.callback(_shut_down, ray)
        # Ray opens its own folder to everybody; here that is inside a closed one.
        _start(ray, options | {"_temp_dir": str(folder / "r")})
        yield


def _start(ray: Any, options: dict[str, Any]) -> None:
    """Start a local Ray, without its log lines between those of the progress bar."""
    with quiet_stderr(), warnings.catch_warnings(), _signals_afterwards(ray), patient_start(ray):
        # LanceDB and Lance warn of a fork without exec; Ray calls exec right after it forks.
        warnings.filterwarnings("ignore", message="lancedb fork support|lance is not fork-safe")
        try:
            ray.init(address="local", include_dashboard=False, **options)
        except PlacerayError:
            raise
        except Exception as error:  # Ray raises this very class where its processes do not answer in time
            raise CannotStartRay(
                f"Ray does not start on this machine ({_first_line(error)}): see that it has memory and "
                "processor time to spare, and run the same command again"
            ) from error
    if not _requires_token(ray):
        raise RayWithoutAuthentication(
            "Ray started without authentication and was ended: unset RAY_AUTH_MODE, and report this"
        )


def _shut_down(ray: Any) -> None:
    with quiet_stderr():
        ray.shutdown()


def _read_settings_anew(ray: Any) -> None:
    """Let Ray in this process read its settings and token again: it keeps those of its first use."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _on_loopback(ray: Any) -> Iterator[None]:
    """Have this process take the loopback address for its own, as its children do by their environment."""
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _signals_afterwards(ray: Any) -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until Ray has started: ended half-way, it takes this process along.

    A second signal is not held back. Ray's own handler of SIGTERM is not installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    received: list[int] = []

    def hold(number: int, frame: object) -> None:
        received.append(number)
        restore()

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    for number in handlers:
        signal.signal(number, hold)
    utilities = ray._private.utils
    install, utilities.set_sigterm_handler = utilities.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        utilities.set_sigterm_handler = install
        restore()
        if received:
            signal.raise_signal(received[0])


def _warn_where_open(ray: Any) -> None:
    """Say that a joined cluster runs without authentication."""
    if not _requires_token(ray):
        log.warning(
            "this Ray cluster runs without authentication: whoever reaches its ports can run code as its "
            "user; start it with RAY_AUTH_MODE=token"
        )


def _requires_token(ray: Any) -> bool:
    raylet = ray._raylet
    return bool(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)

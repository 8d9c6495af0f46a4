"""The environment of a private Ray: token authentication on loopback, and no secrets of the service."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.errors import PlacerayError

__all__ = ["LOG_LEVEL", "RayWithoutAuthentication", "ray_environment", "require_authentication"]

MODE = "RAY_AUTH_MODE"
LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
# The service's own tokens, which only the driver needs, and what would tie Ray to something else: another
# token, another cluster's address or database, a port that only one Ray can have.
WITHHELD = (
    "PLACERAY_TOKENS",
    "PLACERAY_TOKEN",
    "RAY_AUTH_TOKEN",
    "RAY_ENABLE_K8S_TOKEN_AUTH",
    "RAY_ADDRESS",
    "RAY_REDIS_ADDRESS",
    "RAY_GCS_SERVER_PORT",
)


class RayWithoutAuthentication(PlacerayError):
    """A private Ray would accept everybody who reaches its ports."""

    reason = "ray_without_authentication"


def require_authentication(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse an environment in which Ray would run without authentication.

    Ray takes every value of RAY_AUTH_MODE other than `token` for `disabled`, misspelt ones too.

    Raises:
        RayWithoutAuthentication: RAY_AUTH_MODE switches authentication off.
    """
    mode = environment.get(MODE, "")
    if mode.lower() not in ("", "token"):
        raise RayWithoutAuthentication(
            f"RAY_AUTH_MODE={mode} would start a Ray that runs code for everybody who reaches its ports: "
            "unset RAY_AUTH_MODE, or join a cluster of your own with RAY_ADDRESS"
        )


@contextlib.contextmanager
def ray_environment(folder: Path) -> Iterator[None]:
    """Set the environment that a private Ray and its processes get, and restore it afterwards.

    Args:
        folder: Private folder, which gets the token.

    Raises:
        RayWithoutAuthentication: see `require_authentication`.
    """
    require_authentication()
    values = {
        MODE: "token",
        "RAY_AUTH_TOKEN_PATH": str(_write_token(folder / "token")),
        LOG_LEVEL: os.environ.get(LOG_LEVEL, "fatal"),
        # Ray's name for running on one machine only: it then listens on loopback alone, on every system.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    before = {name: os.environ.get(name) for name in (*values, *WITHHELD)}
    for name in WITHHELD:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _write_token(path: Path) -> Path:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(secrets.token_hex(32))
    return path

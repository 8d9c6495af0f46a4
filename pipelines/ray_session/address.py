"""Which Ray a job uses: the one rule for every command."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from storage.errors import PlacerayError

__all__ = [
    "RULE",
    "InvalidRayAddress",
    "cluster_address",
    "joined_already",
    "require_answer",
    "starts_own_ray",
]

RULE = (
    "Ray: this command starts a private Ray on this machine and ends it afterwards. It joins a cluster "
    "instead in a Ray job (`ray job submit`), in a process that has called ray.init(), or where RAY_ADDRESS "
    "names one: auto (the one that `ray start` started on this machine), HOST:PORT, or ray://HOST:PORT."
)
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it in the process of a submitted job
ANSWER_S = 20.0
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


class InvalidRayAddress(PlacerayError, ValueError):
    """RAY_ADDRESS does not name a cluster that can be joined."""

    reason = "invalid_ray_address"


def starts_own_ray(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a job in this process starts a Ray of its own instead of joining one.

    Raises:
        InvalidRayAddress: see `cluster_address`.
    """
    return not joined_already() and cluster_address(environment) is None


def joined_already() -> bool:
    """Return whether this process has called `ray.init`, or is a worker of Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def cluster_address(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the address of the cluster to join, as `ray.init` takes it; None: start a private Ray.

    What else runs on this machine makes no difference, nor does Ray's note of the last cluster
    (`ray_current_cluster`), which every user of the machine could write.

    Args:
        environment: Usually `os.environ`.

    Raises:
        InvalidRayAddress: RAY_ADDRESS is a web address or none at all, or `auto` would follow another
            user's note.
    """
    address = environment.get("RAY_ADDRESS", "").strip()
    if address in ("", "local"):
        return "auto" if JOB in environment else None
    if address == "auto":
        if JOB not in environment:
            _require_own_note(_noted_cluster(environment))
        return address
    scheme, _, rest = address.rpartition("://")
    if scheme.lower() in ("http", "https"):
        raise InvalidRayAddress(
            f"RAY_ADDRESS={_without_password(address)} is where a cluster takes jobs, and cannot be joined: "
            "submit the command to it with `ray job submit`, or set RAY_ADDRESS to auto, HOST:PORT or "
            "ray://HOST:PORT to join it, or unset RAY_ADDRESS to run on this machine"
        )
    port = _HOST_AND_PORT.fullmatch(rest)
    if scheme not in ("", "ray") or port is None or not 0 < int(port[1]) < 65536:
        raise InvalidRayAddress(
            f"RAY_ADDRESS={_without_password(address)} names no cluster: give auto, HOST:PORT or "
            "ray://HOST:PORT, or unset it to run on this machine"
        )
    return address


def require_answer(address: str, timeout_s: float = ANSWER_S) -> None:
    """Check that something listens at an address of `cluster_address`: Ray itself would try for minutes.

    Args:
        address: `auto` is not checked: Ray itself looks for that one on this machine.
        timeout_s: How long it may take to answer, in seconds.

    Raises:
        OSError: nothing does.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
        pass


def _noted_cluster(environment: Mapping[str, str]) -> Path:
    """Return where `ray start` notes the address that `auto` leads to."""
    folder = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    return Path(folder, "ray", "ray_current_cluster")


def _require_own_note(note: Path) -> None:
    """Refuse a note that neither this user nor root wrote: the cluster it names would get Ray's token."""
    try:
        owner = note.lstat().st_uid
    except OSError:  # none: Ray looks for a running cluster
        return
    if owner not in (0, os.geteuid()):
        raise InvalidRayAddress(
            f"RAY_ADDRESS=auto would join the cluster named in {note}, which another user of this machine "
            "wrote: if you trust it, give its HOST:PORT instead"
        )


def _without_password(address: str) -> str:
    try:
        parts = urlsplit(address)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return address.rpartition("@")[2]

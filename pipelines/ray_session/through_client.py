"""Jobs through Ray Client (`ray://`) run on the cluster themselves, since Ray Data needs a node there."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pipelines.ray_session.address import cluster_address, joined_already
from pipelines.ray_session.session import CannotJoinRay, check_ray, ray_session

__all__ = ["on_cluster"]

CLIENT_SCHEME = "ray://"
END_PATIENCE_S = 30.0
UNSEEN = {"quiet": True, "progress": None}  # progress stays on the cluster

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def on_cluster(job: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a job so that through Ray Client it runs in a task on the cluster, and else in this process.

    Paths are then read on the cluster, relative ones from the same folder as here. Its progress is not shown.
    Where the caller is interrupted, the task is too, and is given time to leave its `with` blocks.

    Args:
        job: A function of a module that the cluster has too, whose results and errors can be pickled.

    Returns:
        The job. Through a client it also raises CannotJoinRay: the cluster has no placeray, or lost the task.
    """
    options_of_job = inspect.signature(job).parameters
    unseen = {name: value for name, value in UNSEEN.items() if name in options_of_job}

    @functools.wraps(job)
    def run(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        if not _through_client():
            return job(*arguments, **options)
        check_ray()
        with ray_session() as ray:
            task = ray.remote(num_cpus=0, max_retries=0)(_run)
            sent = {**options, **unseen}
            reference = task.remote(job.__module__, job.__qualname__, os.getcwd(), arguments, sent)
            result: _Result = _result(ray, reference)
            return result

    return run


def _through_client() -> bool:
    """Return whether this process joins, or has joined, a cluster through Ray Client.

    Raises:
        InvalidRayAddress: see `cluster_address`.
    """
    if not joined_already():
        return (cluster_address() or "").startswith(CLIENT_SCHEME)
    client = sys.modules.get("ray.util.client")
    return client is not None and bool(client.ray.is_connected())


def _run(module: str, name: str, folder: str, arguments: Any, options: dict[str, Any]) -> Any:
    """Run the job; on a worker of the cluster."""
    before = os.getcwd()
    with contextlib.suppress(OSError):  # a cluster without the caller's folders
        os.chdir(folder)
    try:
        return getattr(importlib.import_module(module), name)(*arguments, **options)
    finally:
        os.chdir(before)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ImportError):
            raise _cannot_run(error.cause) from error
        raise (error.cause or error) from None
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise _cannot_run(error) from error
    except BaseException:  # Ctrl-C and SIGTERM too
        ray.cancel(reference)
        ray.wait([reference], timeout=END_PATIENCE_S)
        raise


def _cannot_run(error: Exception) -> CannotJoinRay:
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
    return CannotJoinRay(
        f"the job cannot run on the cluster ({why[:300]}): see that this version of placeray is installed "
        "there, or use `ray job submit`"
    )

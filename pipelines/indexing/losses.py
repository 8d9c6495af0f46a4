"""Tells what a cluster lost, which a job survives, from what went wrong in a stage, which it reports."""

from __future__ import annotations

__all__ = ["is_loss"]


def is_loss(error: BaseException) -> bool:
    """Return whether an error says that a worker, a node or an object of the cluster is gone.

    Ray hides the cause of some in `cause`, and Ray Data in `__cause__`.
    """
    from ray import exceptions

    losses = (
        exceptions.RayActorError,
        exceptions.ObjectLostError,
        exceptions.NodeDiedError,
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.RpcError,
    )
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            break
        if isinstance(seen, losses):
            return True
        seen = getattr(seen, "cause", None) or seen.__cause__
    return False

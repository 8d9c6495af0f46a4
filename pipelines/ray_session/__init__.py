"""The Ray of a job: a cluster that it joins, or a private one of its own."""

from pipelines.ray_session.address import (
    RULE,
    InvalidRayAddress,
    cluster_address,
    starts_own_ray,
)
from pipelines.ray_session.environment import RayWithoutAuthentication
from pipelines.ray_session.folder import NoRayFolder
from pipelines.ray_session.quiet import quiet_stderr
from pipelines.ray_session.session import CannotJoinRay, check_ray, ray_session
from pipelines.ray_session.through_client import on_cluster

__all__ = [
    "RULE",
    "CannotJoinRay",
    "InvalidRayAddress",
    "NoRayFolder",
    "RayWithoutAuthentication",
    "check_ray",
    "cluster_address",
    "on_cluster",
    "quiet_stderr",
    "ray_session",
    "starts_own_ray",
]

"""A Ray head without cores whose autoscaler starts raylets on this machine, as a cloud would start nodes.

`ray.cluster_utils.AutoscalingCluster` does the same, but stops every other Ray of the machine first.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.support.ray_head import RAY, free_port, short_folder

__all__ = ["Autoscaling", "autoscaling_head"]

EMPTY = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
EMPTY += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
EMPTY += ("rsync_exclude", "rsync_filter")


class Autoscaling:
    """A running head.

    Attributes:
        address: Its address.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def environment(self) -> dict[str, str]:
        """What a job needs to find the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {**kept, "RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}

    def workers(self) -> int:
        """Return the number of workers that are alive."""
        from ray._raylet import GcsClient

        nodes = GcsClient(address=self.address).get_all_node_info().values()
        return sum(node.state == 0 and not node.is_head_node for node in nodes)

    def wait_for_workers(self, count: int, *, timeout_s: float = 90.0) -> None:
        """Wait until exactly so many workers are alive."""
        deadline = time.monotonic() + timeout_s
        while self.workers() != count:
            assert time.monotonic() < deadline, f"{self.workers()} workers instead of {count}"
            time.sleep(0.5)


@contextlib.contextmanager
def autoscaling_head(tmp_path: Path, *, worker: dict[str, float], most: int) -> Iterator[Autoscaling]:
    """Start a head that may start up to `most` workers, and stops those that were idle for six seconds.

    Args:
        tmp_path: For files.
        worker: Resources of a worker.
        most: Maximum number of workers.
    """
    from ray._private.services import get_node_ip_address

    port = free_port()
    config: dict[str, Any] = {
        "cluster_name": "fake_multinode",
        "max_workers": most,
        "provider": {
            "type": "fake_multinode",
            "use_node_id_as_ip": True,  # the nodes share one address
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": f"{get_node_ip_address()}:{port}",
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in EMPTY},
    }
    file = tmp_path / "autoscaling.json"
    file.write_text(json.dumps(config))
    command = [RAY, "start", "--head", "--block", "--num-cpus=0", f"--port={port}", "--disable-usage-stats"]
    command += [f"--autoscaling-config={file}", "--include-dashboard=false"]
    command += ["--object-store-memory=200000000", f"--ray-client-server-port={free_port()}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": short_folder()}
    with open(tmp_path / "head.log", "w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = config["provider"]["gcs_address"]
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in (tmp_path / "head.log").read_text():
            assert head.poll() is None, (tmp_path / "head.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "head.log").read_text()
            time.sleep(0.2)
        yield Autoscaling(address)
    finally:
        # Only processes of this test are killed, by id.
        started = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait(30)

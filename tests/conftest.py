"""Fixtures shared by all tests: one small Ray for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.threads import sleep_while_waiting

sleep_while_waiting()


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()

from __future__ import annotations

import pytest
import ray


def test_ray_does_not_start_in_a_test_without_the_marker() -> None:
    with pytest.raises(pytest.fail.Exception, match="local_ray"):
        ray.init()

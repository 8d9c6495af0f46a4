"""The environment of a private Ray."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipelines.ray_session.environment import ray_environment


def test_ray_gets_a_token_of_its_own_and_no_secret_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        "PLACERAY_TOKENS": "read:0123456789abcdef",
        "PLACERAY_TOKEN": "0123456789abcdef",
        "RAY_AUTH_TOKEN": "of another Ray",
        "RAY_AUTH_TOKEN_PATH": "/of/another",
        "RAY_ADDRESS": "local",
        "RAY_REDIS_ADDRESS": "10.0.0.1:6379",
        "RAY_GCS_SERVER_PORT": "6379",
    }
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = dict(os.environ)
    with ray_environment(tmp_path):
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert token.parent == tmp_path
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text()) == 64
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert not (kept.keys() - {"RAY_AUTH_TOKEN_PATH"}) & os.environ.keys()
    assert dict(os.environ) == before

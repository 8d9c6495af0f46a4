"""A private Ray may take long to start on a busy machine."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from pipelines.ray_session import patience
from pipelines.ray_session.patience import GCS_PATIENCE, patient_start


def fake_ray(answers: list[object]) -> SimpleNamespace:
    def get_node(address: str, node: str) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return SimpleNamespace(_private=SimpleNamespace(services=SimpleNamespace(get_node=get_node)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "POLL_S", 0.0)
    monkeypatch.delenv(GCS_PATIENCE, raising=False)


def test_node_is_awaited_until_it_is_known() -> None:
    ray = fake_ray([RuntimeError("unknown")] * 50 + [{"node": 1}])
    before = ray._private.services.get_node
    with patient_start(ray):
        assert ray._private.services.get_node("127.0.0.1:1", "n") == {"node": 1}
        assert int(os.environ[GCS_PATIENCE]) > 30
    assert ray._private.services.get_node is before
    assert GCS_PATIENCE not in os.environ


def test_node_that_never_comes_up_is_an_error() -> None:
    ray = fake_ray([RuntimeError("unknown")] * 3)
    with patient_start(ray, 0.0), pytest.raises(RuntimeError, match="unknown"):
        ray._private.services.get_node("127.0.0.1:1", "n")


def test_setting_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GCS_PATIENCE, "7")
    with patient_start(fake_ray([])):
        assert os.environ[GCS_PATIENCE] == "7"
    assert os.environ[GCS_PATIENCE] == "7"

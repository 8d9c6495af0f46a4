"""What a session says about the cluster that it joined."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from types import SimpleNamespace

import pytest

from pipelines.ray_session import CannotJoinRay, RayWithoutAuthentication, ray_session, starts_own_ray
from pipelines.ray_session.session import CannotStartRay, _signals_afterwards, _start


class Modes:
    DISABLED, TOKEN = "disabled", "token"


def fake_ray(mode: str, **more: object) -> SimpleNamespace:
    raylet = SimpleNamespace(AuthenticationMode=Modes, get_authentication_mode=lambda: mode)
    return SimpleNamespace(_raylet=raylet, **more)


@pytest.mark.parametrize(("mode", "lines"), [("token", 0), ("disabled", 1)])
def test_joined_cluster_without_authentication_is_named(
    mode: str, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ray = fake_ray(mode, is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # that of the cluster is what counts
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere")
    assert not starts_own_ray()
    with caplog.at_level(logging.WARNING), ray_session() as joined:
        assert joined is ray
    assert [record.levelname for record in caplog.records] == ["WARNING"] * lines


def test_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise ConnectionError(f"Failed to connect to {options['address']}\nand more")

    exceptions = SimpleNamespace(RayError=RuntimeError)
    ray = fake_ray("token", is_initialized=lambda: False, init=init, exceptions=exceptions)
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            monkeypatch.setenv("RAY_ADDRESS", given)
            with (
                pytest.raises(CannotJoinRay, match=f"{address}.*Failed") as refused,
                ray_session(),
            ):
                pass
            assert "\n" not in str(refused.value)
    # Nothing listens there any more: Ray, which would try for minutes, is not asked.
    with pytest.raises(CannotJoinRay, match=f"{address}.*refused"), ray_session():
        pass


def test_ray_that_does_not_come_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup.\nand more")

    private = SimpleNamespace(
        utils=SimpleNamespace(set_sigterm_handler=print), services=SimpleNamespace(get_node=print)
    )
    ray = fake_ray("token", init=init, _private=private)
    with pytest.raises(
        CannotStartRay, match=r"timed out during startup.*run the same command again"
    ) as refused:
        _start(ray, {})
    assert "\n" not in str(refused.value)


def test_session_without_authentication_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setitem(sys.modules, "ray", fake_ray("disabled", is_initialized=lambda: False))  # type: ignore[arg-type]
    with pytest.raises(RayWithoutAuthentication), ray_session():
        pass


def test_signals_wait_until_ray_has_started_unless_they_are_repeated() -> None:
    installed: list[object] = []
    utilities = SimpleNamespace(set_sigterm_handler=installed.append)
    ray = fake_ray("token", _private=SimpleNamespace(utils=utilities))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    passed: list[int] = []

    def start(signals: int) -> None:
        with _signals_afterwards(ray):
            utilities.set_sigterm_handler("of Ray")
            for number in range(signals):
                signal.raise_signal(signal.SIGINT)
                passed.append(number)

    for signals in (1, 2):  # the second one ends the start
        passed.clear()
        with pytest.raises(KeyboardInterrupt):
            start(signals)
        assert passed == [0]
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert installed == []
    utilities.set_sigterm_handler("of Ray")
    assert installed == ["of Ray"]

"""Jobs through Ray Client run on the cluster; all others in this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.ray_session import CannotJoinRay, through_client
from pipelines.ray_session.through_client import on_cluster
from storage.errors import StoreLocked

calls: list[dict[str, Any]] = []


@on_cluster
def job(number: int, *, quiet: bool = False, progress: object = None, fails: bool = False) -> str:
    calls.append({"number": number, "quiet": quiet, "progress": progress, "folder": os.getcwd()})
    if fails:
        raise StoreLocked("another writer")
    return f"did {number}"


class RayError(Exception):
    pass


class TaskError(RayError):
    def __init__(self, cause: Exception | None) -> None:
        super().__init__("trace of the cluster")
        self.cause = cause


class Client:
    """Runs a task at once, or never."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=RayError)

    def __init__(self, *, endless: bool = False) -> None:
        self.endless = endless
        self.cancelled: list[Any] = []

    def remote(self, **options: Any) -> Any:
        assert options["num_cpus"] == 0
        return lambda function: SimpleNamespace(remote=lambda *arguments: (function, arguments))

    def get(self, reference: Any) -> Any:
        if self.endless:
            raise KeyboardInterrupt
        function, arguments = reference
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(through_client, "_through_client", lambda: False)  # as on the cluster
                return function(*arguments)
        except StoreLocked as error:
            raise TaskError(error) from error

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference)

    def wait(self, references: list[Any], *, timeout: float) -> None:
        assert self.cancelled == references


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def connect(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    @contextlib.contextmanager
    def session() -> Iterator[Client]:
        yield client

    monkeypatch.setenv("RAY_ADDRESS", "ray://cluster:10001")
    monkeypatch.setattr(through_client, "ray_session", session)


@pytest.mark.parametrize("address", ["", "local", "auto", "192.0.2.1:6379"])
def test_without_a_client_the_job_runs_here(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert job(1, progress=print) == "did 1"
    assert calls == [{"number": 1, "quiet": False, "progress": print, "folder": os.getcwd()}]


def test_through_a_client_it_runs_there_in_the_same_folder_and_without_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, Client())
    monkeypatch.chdir(tmp_path)
    assert job(2, progress=print) == "did 2"
    assert calls == [{"number": 2, "quiet": True, "progress": None, "folder": str(tmp_path)}]


def test_an_error_there_is_the_same_error_here(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, Client())
    with pytest.raises(StoreLocked, match=r"^another writer$"):
        job(3, fails=True)


@pytest.mark.parametrize(
    "failure",
    [TaskError(ModuleNotFoundError("No module named 'pipelines'")), RayError("worker died"), OSError],
)
def test_a_cluster_that_cannot_run_it_is_named(failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unable(Client):
        def get(self, reference: Any) -> Any:
            raise ConnectionError("gone") if failure is OSError else failure

    connect(monkeypatch, Unable())
    with pytest.raises(CannotJoinRay, match="installed there"):
        job(5)


def test_an_interrupt_here_ends_it_there(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(endless=True)
    connect(monkeypatch, client)
    with pytest.raises(KeyboardInterrupt):
        job(4)
    assert len(client.cancelled) == 1
    assert calls == []

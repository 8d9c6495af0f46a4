"""Defaults of `index(source, store_uri)`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from models.names import DEFAULT_MODEL
from pipelines.indexing import index
from storage.store import Store
from tests.support.store_samples import make_card


class Stop(Exception):
    """Ends the job as soon as the tested value is known."""


def stop(model: str, **_: object) -> NoReturn:
    raise Stop(model)


@pytest.mark.parametrize("stored", [None, "selavpr-vits14"])
def test_the_default_model_is_that_of_the_store(
    stored: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "store")
    if stored:
        Store.create(uri, make_card(model=stored))
    monkeypatch.setattr("models.weights.load_card", stop)
    for model, expected in ((None, stored or DEFAULT_MODEL), ("other", "other")):
        with pytest.raises(Stop) as caught:
            index(tmp_path, uri, model=model)
        assert caught.value.args == (expected,)


def test_progress_is_shown_unless_quiet_or_with_a_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: list[tuple[int, int, int]] = []

    def report_and_stop(*, total: int, progress: Any) -> NoReturn:
        progress(3, 1, total)
        raise Stop

    monkeypatch.setattr("pipelines.indexing.job.card_of", lambda *_: (SimpleNamespace(model="any"), False))
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "abcd":
        (photos / f"{name}.jpg").touch()
    store = SimpleNamespace(uri=str(tmp_path))
    monkeypatch.setattr("pipelines.indexing.job.open_or_create", lambda *_, **__: store)
    monkeypatch.setattr("pipelines.indexing.job.Tally", report_and_stop)
    shown = []
    for options in ({}, {"quiet": True}, {"progress": lambda *state: received.append(state)}):
        with pytest.raises(Stop):
            index(photos, str(tmp_path), rejected_file=tmp_path / "r.csv", **options)
        shown.append(capsys.readouterr().err)
    assert shown[0].startswith("index: 3/4 images, ")
    assert shown[1:] == ["", ""]
    assert received == [(3, 1, 4)]

"""history, tag-version, rollback and delete --forget on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import main
from storage.store import Store
from tests.support.store_samples import make_rows, make_store


def test_a_store_goes_back_to_a_tag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "s", ["a", "b"])
    where = ["--store", store.uri]
    assert main(["tag-version", "first", *where]) == 0
    with store.lease():
        store.commit(make_rows(store, ["c"]))
    assert main(["compact", "--keep-versions", "0", *where]) == 0
    capsys.readouterr()
    assert main(["history", *where, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["versions"]
    assert (listed[0]["rows"], listed[0]["tags"]) == (2, ["first"])
    assert main(["history", *where]) == 0
    assert "first" in capsys.readouterr().out
    assert main(["rollback", "--to", "first", *where, "--json"]) == 0
    gone_back = json.loads(capsys.readouterr().out)
    assert (gone_back["rows"], gone_back["store_version"]) == (2, Store.open(store.uri).version)
    assert main(["rollback", "--to", "second", *where]) == 2
    assert main(["delete", "a", "--forget", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["deleted"] == 1
    assert Store.open(store.uri).metadata()["image_id"].to_pylist() == ["b"]

"""Stores of others on the command line: every verb ends in one line and touches nothing outside the store.

Verbs come from the real parser: a new one must be named here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.cli.parser import build_parser
from storage.store import Store
from tests.support.hostile_stores import name_card, name_outside_files
from tests.support.pictures import write_photos
from tests.support.store_samples import make_card, make_rows, make_store

# Words: {s} the store, {c} a data set, {p} a photo, {o} a folder for results.
VERBS = {
    "index": "index {c} --store {s} --quiet",
    "query": "query {p} --store {s}",
    "track": "track {p} --store {s} --quiet",
    "serve": "serve --store {s} --port 0 --log-file {o}/log",
    "evaluate": "evaluate {c} --store {s} --quiet",
    "embed": "embed {p} --store {s} --out {o}/out.npz",
    "plan": "plan --images 10 --trial 2 --photos {c} --store {s} --quiet",
    "info": "info --store {s}",
    "verify": "verify --store {s}",
    "compact": "compact --store {s}",
    "delete": "delete a --store {s}",
    "relearn": "relearn --store {s} --quiet",
    "upgrade": "upgrade --store {s}",
    "locate": "locate {c} --store {s} --out {o}/places.csv --quiet",
    "history": "history --store {s}",
    "tag-version": "tag-version june --store {s}",
    "rollback": "rollback --to june --store {s}",
    "delete, and forget": "delete a --forget --store {s}",
    "tag": "tag --store {s} --add night --all",
    "calibrate": "calibrate {c} --store {s} --quiet",
    "export": "export --store {s} --out {o}/out.npy",
    "atlas": "atlas --store {s} --out {o}/atlas",
    "tune": "tune {c} --store {s} --quiet",
    "build-index": "build-index --store {s}",
    "verify, and repair": "verify --repair --store {s}",  # the last: it may mend the store
}


def a_link(name: str) -> Callable[[Path], None]:
    def make(store: Path) -> None:
        path = next(iter(sorted(store.glob(name))), store / name)
        target = store.parent / "outside" / path.name
        if path.exists():
            path.rename(target)
        path.symlink_to(target)

    return make


def a_pipe(name: str) -> Callable[[Path], None]:
    def make(store: Path) -> None:
        (store / name).unlink(missing_ok=True)
        os.mkfifo(store / name)

    return make


def contents(name: str, data: bytes) -> Callable[[Path], None]:
    def make(store: Path) -> None:
        (store / name).write_bytes(data)

    return make


def another_model(store: Path) -> None:
    values = json.loads((store / "card.json").read_text())
    (store / "card.json").write_text(json.dumps(values | {"model": "../outside/model.pth"}))


def a_card_elsewhere(store: Path) -> None:
    name_card(store, None, "../../outside/secret")


def files_elsewhere(store: Path) -> None:
    name_outside_files(store, str(store.parent / "outside"))


slow = pytest.mark.slow
HOSTILE = [
    pytest.param(contents("card.json", b"[" * 100_000), id="card of brackets"),
    pytest.param(contents("card.json", b'{"format_version": 1e400}'), id="card of 1e400", marks=slow),
    pytest.param(contents("card.json", b"\xff"), id="card of bytes", marks=slow),
    pytest.param(contents("COMMITTED", b'{"version": 1e400}'), id="COMMITTED of 1e400"),
    pytest.param(contents("COMMITTED", b"[" * 100_000), id="COMMITTED of brackets", marks=slow),
    pytest.param(a_pipe("COMMITTED"), id="pipe for COMMITTED", marks=slow),
    pytest.param(a_pipe("LEASE"), id="pipe for LEASE", marks=slow),
    *(
        pytest.param(a_link(name), id=f"link for {name}", marks=slow)
        for name in (
            *("features", "records.lance", "records.lance/data/*.lance", "quarantine", "artifacts"),
            *("card.json", "cards", "cards/*.json", "COMMITTED", "SHA256SUMS", "LEASE", "calibration.json"),
        )
    ),
    pytest.param(another_model, id="model that is a path", marks=slow),
    pytest.param(a_card_elsewhere, id="card elsewhere", marks=slow),
    pytest.param(files_elsewhere, id="files elsewhere", marks=slow),
]


def verbs_with_a_store() -> set[str]:
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        verb
        for verb, parser in action.choices.items()
        if any("--store" in a.option_strings for a in parser._actions)
    }


def test_every_verb_with_a_store_is_tried() -> None:
    assert {case.split(",")[0] for case in VERBS} == verbs_with_a_store()


@pytest.mark.parametrize("make_hostile", HOSTILE)
def test_every_verb_ends_with_exit_6_and_one_line(
    make_hostile: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "photos/database", 1)
    write_photos(tmp_path / "photos/queries", 1)
    photo = next((tmp_path / "photos/queries").iterdir()).rename(tmp_path / "photo.jpg")
    shutil.copy(photo, tmp_path / "photos/queries" / "@500000@4000000@.jpg")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("not to be read")
    make_store(tmp_path / "store", ["a", "b"])
    make_hostile(tmp_path / "store")
    before = everything_in(tmp_path / "outside")
    for verb, command in VERBS.items():
        words = {"s": tmp_path / "store", "c": tmp_path / "photos", "p": photo, "o": tmp_path}
        code = main([word.format(**words) for word in command.split()])
        shown = capsys.readouterr()
        if verb.startswith("verify") and not shown.err:  # it reports, or repairs, what it can read
            assert code == (0 if "--repair" in command else 6), verb
            continue
        assert (code, shown.err.count("\n")) == (6, 1), (verb, shown.err)
        assert "not to be read" not in shown.err
        assert everything_in(tmp_path / "outside") == before, verb


def everything_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("name", ["evil.toml", "custom:evil.toml"])
def test_a_model_file_that_only_the_store_names_is_not_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model file runs code; somebody may hand one out beside the store that names it."""
    text = 'model = "python:evil:net"\n[input]\nsize = [64, 96]\n'
    (tmp_path / name).write_text(text)
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    write_photos(tmp_path / "photos/database", 1)
    write_photos(tmp_path / "photos/queries", 1)
    photo = next((tmp_path / "photos/queries").iterdir())
    store = Store.create(tmp_path / "store", replace(make_card(), model=name))
    with store.lease():
        store.commit(make_rows(store, ["a"]))
    monkeypatch.chdir(tmp_path)
    words = {"s": "store", "c": tmp_path / "photos", "p": photo, "o": tmp_path}
    commands = {verb: VERBS[verb] for verb in ("index", "query", "serve", "evaluate", "embed", "calibrate")}
    commands["export"] = "export --store {s} --out {o}/out.onnx"
    for verb, command in commands.items():
        assert main([word.format(**words) for word in command.split()]) in (2, 5), verb
        assert capsys.readouterr().err.count("\n") == 1, verb
    assert not (tmp_path / "ran").exists()

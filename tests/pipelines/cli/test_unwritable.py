"""What cannot be written ends every verb in one line: exit 2, or 7 where the disk is full.

Verbs come from the real parser: a new one must be named here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.weights import load_extractor
from pipelines.cli import main
from pipelines.cli.outputs import FILES, FOLDERS
from pipelines.cli.parser import build_parser
from pipelines.evaluation.query_table import query_table, write_query_table
from pipelines.sources import list_source
from storage.store import Store
from tests.support.city_store import commit_photos
from tests.support.made_evaluations import make_evaluation, make_outcome
from tests.support.mounts import fill_disk, mounted, read_only
from tests.support.paths import GOLDEN, ROOT
from tests.support.pictures import write_photos

# What each verb does on a store that can only be read. Words: {s} the store, {c} a data set whose database is
# stored, {m} one that has more, {d} a folder that can only be read.
READS = {
    "info": "info --store {s}",
    "history": "history --store {s}",
    "models": "models --json",
    "plan": "plan --images 10 --trial 2 --photos {c}/database --store {s} --quiet",
    "verify": "verify --store {s}",
    "query": "query {c}/photo.jpg --store {s}",
    "track": "track {c}/photo.jpg --store {s} --quiet",
    "evaluate": "evaluate {c} --store {s} --quiet",
}
WRITES = {
    "index": "index {m} --store {s} --quiet",
    "index, a new store": "index {m} --store {d}/new --quiet",
    "index, the list of rejected images": "index {m} --store {c}/new --rejected {d}/rejected.csv --quiet",
    "index, the trace": "index {m} --store {c}/new --trace {d}/trace.jsonl --quiet",
    "evaluate": "evaluate {m} --store {s} --quiet",
    "evaluate, a new store": "evaluate {c} --store {d}/new --quiet",
    "evaluate, its page": "evaluate {c} --store {s} --report {d}/report --quiet",
    "evaluate, its predictions": "evaluate {c} --store {s} --predictions {d}/predictions --quiet",
    "compare": "compare {c}/made {c}/made --report {d}/report",
    "export": "export --store {s} --out {d}/out.npy",
    "track, its file": "track {c}/photo.jpg --store {s} --out {d}/track.gpx --quiet",
    "atlas": "atlas --store {s} --out {d}/atlas",
    "tune": "tune {c} --store {s} --target-recall 0.9 --out {d}/tuned.yaml --quiet",
    "delete": "delete some --store {s}",
    "compact": "compact --store {s}",
    "build-index": "build-index --store {s}",
    "build-index, many workers": "build-index --store {s} --workers 2 --quiet",
    "copy": "copy {s} {d}/copy --quiet",
    "verify": "verify --repair --store {s}",
    "relearn": "relearn --store {s}",
    "calibrate": "calibrate {c} --store {s} --quiet",
    "upgrade": "upgrade --store {d}/old",
    "tag": "tag --store {s} --add night --all",
    "locate": "locate {c} --store {s} --out {d}/places.csv --quiet",
    "delete, and forget": "delete some --forget --store {s}",
    "tag-version": "tag-version june --store {s}",
    "rollback": "rollback --to 1 --store {s}",
    "embed": "embed {c}/photo.jpg --model efficientnet-lite0 --out {d}/out.npz",
    "import-weights": "import-weights {g}/selavpr_small.pth --out {d}/out.safetensors",
    "finetune": "finetune {c} --out {d}/out.safetensors --quiet",
    "finetune, its folder": "finetune {c} --out {c}/out.safetensors --run {d}/run --quiet",
    "demo": "demo --out {d}/demo --quiet",
    "serve": "serve --store {s} --log-file {d}/log",
}
# What a full disk ends, without Ray.
FULL = {
    "delete": "delete @500000.00@4000000.00@33@T@@@photo00000@@@@@@@@.jpg --store {d}/store",
    "compact": "compact --store {d}/store",
    "upgrade": "upgrade --store {d}/old",
    "tag": "tag --store {d}/store --add night --all",
    "evaluate, its page": "evaluate {c} --store {s} --report {d}/report --quiet",
    "evaluate, its predictions": "evaluate {c} --store {s} --predictions {d}/predictions --quiet",
    "evaluate, a new store": "evaluate {c} --store {d}/new --quiet",
    "compare": "compare {c}/made {c}/made --report {d}/report",
    "export": "export --store {s} --out {d}/out.npy",
    "embed": "embed {c}/photo.jpg --model efficientnet-lite0 --out {d}/out.npz",
    "import-weights": "import-weights {g}/selavpr_small.pth --out {d}/out.safetensors",
    "demo": "demo --out {d}/demo --quiet",
}
NOT_PATHS_TO_WRITE = {"root", "checkpoint", "use", "weights", "cache_dir"}  # the last: nothing is kept then


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parsers: dict[str, argparse.ArgumentParser] = action.choices
    return parsers


def make_inputs(folder: Path) -> None:
    """Write a data set, one with more photos, the store of the first, and a store of an older format."""
    for name, count in (("small", 3), ("more", 5)):
        write_photos(folder / name / "database", count)
        write_photos(folder / name / "queries", 2)
    shutil.copy(next((folder / "small/queries").iterdir()), folder / "small/photo.jpg")
    extractor = load_extractor("efficientnet-lite0")
    store = Store.create(folder / "stores/store", extractor.card)
    with store.lease():
        commit_photos(store, extractor, list_source(folder / "small"))
    shutil.copytree(GOLDEN / "store_v1_float16", folder / "stores/old")
    evaluation = make_evaluation([make_outcome(0, [5.0])])
    (folder / "small/made").mkdir()
    write_query_table(folder / "small/made", query_table(evaluation.outcomes, dict(evaluation)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def locked(inputs: Path) -> Iterator[Path]:
    """Return a folder on a read-only file system with copies of the stores."""
    with read_only(inputs / "stores", inputs / "mounted") as stores:
        yield stores


def command(text: str, inputs: Path, folder: Path) -> list[str]:
    store = folder / "store" if (folder / "store").exists() else inputs / "stores/store"
    words = {"s": store, "c": inputs / "small", "m": inputs / "more", "d": folder, "g": GOLDEN}
    return [word.format(**words) for word in text.split()]


def test_every_verb_is_tried() -> None:
    tried = {case.split(",")[0] for case in (*READS, *WRITES)}
    assert tried == verbs().keys()


def test_every_flag_that_names_an_output_is_checked_before_the_work() -> None:
    for verb, parser in verbs().items():
        for action in parser._actions:
            metavar = str(action.metavar or "")
            if metavar.startswith(("FILE", "DIR")) and action.dest not in NOT_PATHS_TO_WRITE:
                assert {action.dest, f"{verb}.{action.dest}"} & (FILES | FOLDERS), (verb, action.dest)


@pytest.mark.parametrize("case", READS)
def test_verbs_that_read_work_on_a_read_only_store(
    case: str, inputs: Path, locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(READS[case], inputs, locked)) == 0, capsys.readouterr().err


@pytest.mark.parametrize("case", WRITES)
def test_verbs_that_write_say_in_one_line_that_they_cannot(
    case: str, inputs: Path, locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(WRITES[case], inputs, locked)) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert str(locked) in shown.err
    assert "read-only file system" in shown.err.lower()
    assert not (inputs / "small/new").exists()


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_ends_a_verb_with_exit_7(
    case: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    with mounted(tmp_path / "full", "size=2m"):
        if "{d}/store" in FULL[case] or "{d}/old" in FULL[case]:
            shutil.copytree(inputs / "stores", tmp_path / "full", dirs_exist_ok=True)
        fill_disk(tmp_path / "full")
        code = main(command(FULL[case], inputs, tmp_path / "full"))
        left = [path.name for path in (tmp_path / "full").iterdir() if path.is_file()]
    shown = capsys.readouterr()
    assert code == 7, shown.err
    assert left == ["filler"]  # no half of a file
    assert shown.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("verb", ["index", "evaluate"])
def test_a_full_disk_ends_an_index_run_with_exit_7_and_loses_nothing(
    verb: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    arguments = [verb, str(inputs / "more"), "--store", str(tmp_path / "full/store"), "--quiet"]
    with mounted(tmp_path / "full", "size=4m"):
        shutil.copytree(inputs / "stores/store", tmp_path / "full/store")
        filler = fill_disk(tmp_path / "full")
        assert main(arguments) == 7
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert "free some space" in shown
        assert Store.open(tmp_path / "full/store").count == 3
        filler.unlink()
        assert main(arguments) == 0
        assert Store.open(tmp_path / "full/store").count == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("embed {c}/photo.jpg --model efficientnet-lite0 --out {c}/none/out.npz", "create it first"),
        ("embed {c}/photo.jpg --model efficientnet-lite0 --out {c}", "is a folder"),
        ("index {m} --store {c}/new --trace {c}/none/trace", "create it first"),
        ("evaluate {c} --store {s} --report {c}/photo.jpg", "is not a folder"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_the_work(
    arguments: str, message: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(arguments, inputs, inputs)) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not (inputs / "small/new").exists()


AS_ANOTHER_USER = """
import os, sys, io, contextlib
from pathlib import Path
from tests.pipelines.cli.test_unwritable import READS, WRITES, command
from pipelines.cli import main
# What is imported later may be out of reach of the other user.
import lance, models.weights, pipelines.evaluation.job, pipelines.training.job, serving.app, ray.data
inputs, folder, own = map(Path, sys.argv[1:])
os.setgid(65534); os.setuid(65534); os.chdir(own); os.environ["HOME"] = str(own)
for expected, cases in ((0, READS), (2, WRITES)):
    for case, text in cases.items():
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            code = main(command(text, inputs, folder))
        if code != expected or (expected and errors.getvalue().count("\\n") != 1):
            sys.exit(f"{case}: exit {code}: {errors.getvalue()}")
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_read_by_every_verb_and_written_by_none() -> None:
    with tempfile.TemporaryDirectory() as parent:  # not below pytest's own folder, which is root's alone
        inputs, folder, own = (Path(parent, name) for name in ("inputs", "folder", "own"))
        make_inputs(inputs)
        shutil.copytree(inputs / "stores", folder)
        own.mkdir()
        for path in (Path(parent), *Path(parent).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(own, 65534, 65534)
        arguments = [sys.executable, "-c", AS_ANOTHER_USER, *map(os.fspath, (inputs, folder, own))]
        ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == "done\n", ended.stdout + ended.stderr[-3000:]

"""What the command line prints: nothing that a terminal acts on, JSON exactly."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.cli import commands, main
from pipelines.cli.output import print_answer, print_json, print_pairs, print_training, print_truth
from pipelines.cli.place_words import geojson_of
from pipelines.indexing.tally import Tally
from serving.answer import unknown_place
from storage.store import Store
from tests.support.paths import ROOT
from tests.support.store_samples import make_rows, make_store, with_value

ESCAPES = ("\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\r", "\u202e", "\u2066")


def answer(image_id: str) -> dict[str, Any]:
    match = {"rank": 1, "image_id": image_id, "lat": None, "lon": None, "utm_e": None, "utm_n": None}
    match |= {"mutual_matches": 3, "similarity": 0.5}
    told = {"place": unknown_place(), "degraded": False, "timings_ms": {"total": 1.0}}
    return {"image": "a.jpg", "matches": [match], **told}


@pytest.mark.parametrize("text", ESCAPES)
def test_tables_show_escapes_instead_of_sending_them(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_answer(answer(f"id{text}"))
    print_answer({"image": text, "error": {"reason": text, "message": text}})
    print_pairs({"uri": text, "removed": [text, {"image_id": text}], "card": {"model": text}})
    shown = capsys.readouterr().out
    assert text not in shown
    assert "id\\" in shown


@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"exists": True, "valid": False, "guaranteed": False, "reason": "why"}, "  not calibrated: why\n"),
        ({"exists": True, "valid": True, "guaranteed": False, "reason": "why"}, "  not guaranteed: why\n"),
        ({"exists": True, "valid": True, "guaranteed": True, "reason": None}, ""),
        ({"exists": False, "valid": False, "guaranteed": False, "reason": "never"}, ""),
        (None, ""),
    ],
)
def test_the_table_says_where_a_calibration_does_not_hold(
    about: dict[str, Any] | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_answer(answer("id"))
    plain = capsys.readouterr().out
    print_answer(answer("id") | {"calibration": about})
    shown = capsys.readouterr().out
    assert shown.replace(line, "") == plain
    assert line in shown
    (place, _) = geojson_of([answer("id") | {"calibration": about}])["features"]
    assert place["properties"]["calibration_reason"] == (about or {}).get("reason")
    assert place["properties"]["guaranteed"] == (about or {}).get("guaranteed")


@pytest.mark.parametrize(
    ("distance_m", "right", "words"),
    [
        (3.21, True, "yes, .* 3.2 m .*within 25 m"),
        (80.0, False, "no, .* 80.0 m .*beyond 25 m"),
        (None, False, "unknown"),
    ],
)
def test_the_first_example_says_whether_it_is_right(
    distance_m: float | None, right: bool, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_truth({"distance_m": distance_m, "right": right, "threshold_m": 25.0})
    assert re.search(f"right: {words}", capsys.readouterr().out)


def test_training_says_its_gain_over_the_best_way_before(capsys: pytest.CaptureFixture[str]) -> None:
    recall = {stage: {"1": 60.0, "5": 80.0} for stage in ("global", "reranked")}
    facts = {"best_epoch": 2, "epochs": 3, "steps": 12, "seconds": 4.0, "workers": 1, "device": "cpu"}
    over = {"aggregation": "learned", "score": "votes", "global": 2.5, "reranked": -0.25}
    report = {"dataset": "city", "queries": 4, "database": 9, "protocol": "25 m", "out": "o", "run": "r"}
    report |= {"recall": {"before": recall, "after": recall}, "conditions": {"after": {}}}
    print_training(report | {"facts": facts | {"gain_over_best_before": over}})
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "best way" in line)
    for part in ("learned, votes", "+2.5 by global descriptor", "-0.2 after re-ranking"):
        assert part in line


def test_json_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"ids": [*ESCAPES, "\x00", "plain"]}
    print_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert shown.rstrip("\n").isprintable()


def test_long_lists_and_values_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    print_pairs({"removed": [f"id{i}" for i in range(1000)], "uri": "x" * 10**6})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 52
    assert max(map(len, lines)) <= 2000


def test_messages_show_escapes_instead_of_sending_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "--store", str(tmp_path / "no\x1b[2Jstore\nhere")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert r"no\x1b[2Jstore\nhere" in message


def test_verify_shows_ids_of_a_hostile_store_without_their_escapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path)
    with store.lease():
        rows = make_rows(store, ["\x1b[2J"])
        store.commit(with_value(rows, "row", 0, 5))  # the shard has one row only
    assert main(["verify", "--store", str(tmp_path)]) == 6
    assert "\x1b" not in capsys.readouterr().out
    assert [row.image_id for row in Store.open(tmp_path).verify().bad_rows] == ["\x1b[2J"]


def test_rejected_images_open_in_a_spreadsheet_as_text(tmp_path: Path) -> None:
    ids = ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "a\x1b[2J", "plain"]
    tally = Tally(total=len(ids), progress=lambda done, rejected, total: None)
    rows = [
        {"image_id": name, "uri": f"/{name}", "rejected": "corrupt", "message": "=HYPERLINK(0)"}
        for name in ids
    ]
    tally.rejections.add(pa.Table.from_pylist(rows))
    (tmp_path / "rejected.csv").symlink_to(tmp_path / "elsewhere")
    tally.write_rejections(tmp_path / "rejected.csv")
    with open(tmp_path / "rejected.csv", newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert {row["image_id"] for row in written} == {
        *("'=1+1", "'+cmd|' /C calc'!A0", "-2", "'@SUM(A1)", "a\ufffd[2J", "plain")
    }
    assert {row["message"][0] for row in written} == {"'"}
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.EROFS, 2), (errno.EACCES, 2), (errno.ENOSPC, 7), (errno.EDQUOT, 7)]
)
def test_errors_of_the_system_end_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    expected: int,
) -> None:
    def refused(args: object) -> int:
        raise OSError(code, os.strerror(code), str(tmp_path / "report"))

    monkeypatch.setitem(commands.VERBS, "info", refused)
    assert main(["info", "--store", str(tmp_path)]) == expected
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(tmp_path / "report") in message


def test_other_errors_of_the_system_are_bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: object) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setitem(commands.VERBS, "info", broken)
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["info", "--store", str(tmp_path)])


def test_every_table_with_names_is_safe_in_a_spreadsheet() -> None:
    numbers_only = {"pipelines/training/log.py"}
    writers = {
        path.relative_to(ROOT).as_posix()
        for folder in ("pipelines", "serving", "placeray")
        for path in (ROOT / folder).rglob("*.py")
        if "csv." in path.read_text() and re.search(r"csv\.(Dict)?[wW]riter\(", path.read_text())
    }
    assert "pipelines/indexing/tally.py" in writers
    unsafe = {name for name in writers if "spreadsheet_safe(" not in (ROOT / name).read_text()}
    assert unsafe == numbers_only


@pytest.mark.parametrize("lines", [1, 10_000])
def test_output_that_nobody_reads_ends_a_verb_in_silence(
    lines: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As of `placeray info ... | head -1`."""

    def run(args: object) -> int:
        for _ in range(lines):
            print("a line of output")
        return 0

    monkeypatch.setitem(commands.VERBS, "info", run)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert commands.main(["info", "--store", "any"]) == 141
    assert capfd.readouterr().err == ""


def test_broken_pipe_of_another_cause_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: object) -> int:
        raise BrokenPipeError

    monkeypatch.setitem(commands.VERBS, "info", run)
    with pytest.raises(BrokenPipeError):
        commands.main(["info", "--store", "any"])

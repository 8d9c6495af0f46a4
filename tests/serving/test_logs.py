"""Logs of the service as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.logs import JsonLines, log_json


def line_of(message: object, *arguments: object, exc_info: Any = None) -> dict[str, Any]:
    record = logging.LogRecord("serving", logging.INFO, "f", 1, message, arguments, exc_info)
    line = JsonLines("Ingress#1").format(record)
    assert "\n" not in line
    return dict(json.loads(line))


def test_fields_of_an_event_stand_beside_time_level_and_replica() -> None:
    line = line_of({"event": "request", "status": 200, "path": Path("/x")})
    time = line.pop("time")
    assert line == {"level": "info", "replica": "Ingress#1", "event": "request", "status": 200, "path": "/x"}
    assert time.endswith("+00:00")


def test_any_other_message_is_a_field() -> None:
    line = line_of("plain %s\nwith a second line", "text")
    assert (line["event"], line["message"]) == ("log", "plain text\nwith a second line")


def test_exceptions_are_one_field() -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        line = line_of("it failed", exc_info=sys.exc_info())
    assert "KeyError: 'lost'" in line["traceback"]
    assert line.keys() == {"time", "level", "replica", "event", "message", "traceback"}


def test_logs_go_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("serving")
    for name in ("level", "propagate", "handlers"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    monkeypatch.setattr(logger, "handlers", [])
    log_json(replica="a", file=str(tmp_path / "log"))
    logging.getLogger("serving.stages").info({"event": "version"})
    logger.handlers[0].close()
    assert json.loads((tmp_path / "log").read_text())["event"] == "version"


def test_a_new_log_is_its_users_alone_and_an_existing_one_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "shared.log").touch(0o664)
    (tmp_path / "shared.log").chmod(0o664)
    logger = logging.getLogger("serving")
    before = logger.handlers[:], logger.propagate
    try:
        for name, mode in (("new.log", 0o600), ("shared.log", 0o664)):
            log_json(replica="a", file=str(tmp_path / name))
            logger.info("here")
            logger.handlers[0].close()
            assert (tmp_path / name).stat().st_mode & 0o777 == mode
            assert "here" in (tmp_path / name).read_text()
    finally:
        logger.handlers[:], logger.propagate = before

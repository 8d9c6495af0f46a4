"""Logs of the service: one JSON object per line."""

from __future__ import annotations

import logging
import logging.handlers
import os
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import Any

from pythonjsonlogger.json import JsonFormatter

__all__ = ["JsonLines", "log_json"]


class JsonLines(JsonFormatter):
    """Formats a record as one JSON object: the fields of a dictionary, or any other message as a field.

    Args:
        replica: Name of this replica, a field of each line.
    """

    def __init__(self, replica: str) -> None:
        super().__init__(json_default=str)
        self._replica = replica

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fill in the line's fields."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data |= {"time": time, "level": record.levelname.lower(), "replica": self._replica}
        if not isinstance(record.msg, dict):
            log_data |= {"event": "log", "message": record.getMessage()}
        traceback = message_dict.pop("exc_info", None)
        log_data |= message_dict
        if traceback:
            log_data["traceback"] = traceback


class _PrivateFileHandler(logging.handlers.WatchedFileHandler):
    """Appends to a file that it makes readable by its user alone; one that exists keeps its permissions."""

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return os.fdopen(fd, "a", encoding="utf-8")


def log_json(*, replica: str, file: str = "") -> None:
    """Send what `serving` logs to stderr, or append it to a file that several processes may share."""
    handler = _PrivateFileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(JsonLines(replica))
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False

"""Logs of the service: one JSON object a line."""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime

__all__ = ["JsonLines", "log_json"]


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object; a message that is one itself gives its fields."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"time": time, "level": record.levelname.lower(), "replica": self._replica}
        message = record.getMessage()
        try:
            said = json.loads(message)
        except ValueError:
            said = message
        fields |= said if isinstance(said, dict) else {"event": "log", "message": message}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def log_json(*, replica: str, file: str = "") -> None:
    """Send what `serving` logs to stderr, or append it to a file that several processes may share."""
    handler = logging.handlers.WatchedFileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(JsonLines(replica))
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False

"""The board on which workers report to the driver: log events, errors, the result."""

from __future__ import annotations

from typing import Any

__all__ = ["Board"]


class Board:
    """What workers have reported: an actor, shared by all of them and the driver."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._error: Exception | None = None
        self._result: dict[str, Any] = {}

    def put_event(self, event: dict[str, Any]) -> None:
        """Add a row of the log, or the start of training."""
        self._events.append(event)

    def take_events(self) -> list[dict[str, Any]]:
        """Return and remove the events put since the last call."""
        events, self._events = self._events, []
        return events

    def set_error(self, error: Exception) -> None:
        """Keep the first error that a retry cannot fix."""
        self._error = self._error or error

    def error(self) -> Exception | None:
        """Return the first error that a retry cannot fix, or None."""
        return self._error

    def set_result(self, result: dict[str, Any]) -> None:
        """Keep the final results of training."""
        self._result = result

    def result(self) -> dict[str, Any]:
        """Return the final results of training; empty before its end."""
        return self._result

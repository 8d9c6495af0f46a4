"""Clients that keep a service busy, and the answers they received."""

from __future__ import annotations

import threading
import time
from collections import Counter

import requests

from tests.support.serve_client import query, wait_for

__all__ = ["Load"]


class Load:
    """Clients that send queries until the block ends.

    Args:
        url: Of the service.
        photos: To send in turn.
        clients: Their number.
        pause_s: Time that each waits between an answer and its next query.

    Attributes:
        answers: Status (0: no connection), seconds and the beginning of the text of each answer.
    """

    def __init__(self, url: str, photos: list[bytes], clients: int, *, pause_s: float = 0.0) -> None:
        self._url = url
        self._photos = photos
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.answers: list[tuple[int, float, str]] = []
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._stop.wait(self._pause_s):
            started = time.perf_counter()
            try:
                reply = query(self._url, self._photos[number % len(self._photos)])
                outcome = (reply.status_code, time.perf_counter() - started, reply.text[:200])
            except requests.ConnectionError as error:
                outcome = (0, time.perf_counter() - started, repr(error))
            self.answers.append(outcome)
            number += 1

    def wait_for_more(self, count: int) -> None:
        """Wait for so many further answers."""
        goal = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= goal, patience_s=120)

    def statuses(self) -> Counter[int]:
        """Count the answers by status."""
        return Counter(status for status, _, _ in self.answers)

    def longest_s(self) -> float:
        """Return the time of the slowest answer."""
        return max(seconds for _, seconds, _ in self.answers)

"""Clients of a service whose every answer is judged by the history of its store."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import requests

from tests.soak.history import History
from tests.support.serve_client import query

__all__ = ["Asking"]

TOP_K = 5
DRIVE = 4  # answers that make a drive


class Asking:
    """Queries and drives until told to stop.

    Attributes:
        queries: Answers to queries by status; 0: no connection.
        tracks: Likewise of drives.
        wrong: What did not agree with the history.
        judged: Number of answers that were compared.
    """

    def __init__(self, url: str, photos: list[Path], history: History) -> None:
        self._url = url
        self._photos = photos
        self._history = history
        self._lock = threading.Lock()
        self._waiting: list[tuple[dict[str, Any], str]] = []
        self.queries: Counter[int] = Counter()
        self.tracks: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.judged = 0

    def run(self, stop: threading.Event, seed: int) -> None:
        """Ask with stored photos at random, and follow a drive of the answers now and then."""
        chance, answers = random.Random(seed), []
        while not stop.wait(0.05):
            photo = chance.choice(self._photos)
            status, answer = self._post_photo(photo)
            with self._lock:
                self.queries[status] += 1
            if answer is not None:
                with self._lock:
                    self._waiting.append((answer, photo.name))
                answers = [*answers, answer][-DRIVE:]
            if len(answers) == DRIVE and chance.random() < 0.1:
                self._post_track(answers)
            self.judge()

    def judge(self) -> None:
        """Compare the answers whose version the history knows by now."""
        with self._lock:
            ready = [one for one in self._waiting if self._history.is_known(one[0]["store_version"])]
            self._waiting = [one for one in self._waiting if one not in ready]
            for answer, asked in ready:
                self.judged += 1
                if fault := self._history.wrong(answer, asked, TOP_K):
                    self.wrong.append(fault)

    @property
    def unjudged(self) -> int:
        return len(self._waiting)

    def _post_photo(self, photo: Path) -> tuple[int, dict[str, Any] | None]:
        try:
            reply = query(self._url, photo.read_bytes(), top_k=TOP_K)
        except requests.ConnectionError:
            return 0, None
        return reply.status_code, reply.json() if reply.status_code == 200 else None

    def _post_track(self, answers: list[dict[str, Any]]) -> None:
        try:
            reply = requests.post(f"{self._url}/v1/track", json={"frames": answers}, timeout=90)
            status = reply.status_code
        except requests.ConnectionError:
            status = 0
        with self._lock:
            self.tracks[status] += 1
            # 409: a version that an answer names is gone, or another aggregation came in between.
            if status == 200 and len(reply.json()["frames"]) != DRIVE:
                self.wrong.append(f"a drive of {len(reply.json()['frames'])} frames")

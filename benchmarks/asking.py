"""A client that asks a service without a pause, and what its answers said."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

__all__ = ["Answer", "Asking"]


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        photo: Number of the photo.
        came_at: When it had arrived, as `time.time()`.
        ms: How long it took.
        status: Of HTTP.
        version: Of the store; 0 where there is no answer.
        first: Key of its first match; empty: none.
    """

    photo: int
    came_at: float
    ms: float
    status: int
    version: int
    first: str


class Asking:
    """Asks with one photo after the other from its construction to `stop`.

    Attributes:
        answers: All of them, in their order.
        wanted: The photo to ask with, again and again; None: all in turn.
    """

    def __init__(self, url: str, photos: Sequence[bytes]) -> None:
        self.answers: list[Answer] = []
        self.wanted: int | None = None
        self._url, self._photos = url, photos
        self._session = requests.Session()
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ask nothing within the block."""
        with self._turn:
            yield

    def first_after(
        self, moment: float, photo: int, fits: Callable[[str], bool], patience_s: float
    ) -> Answer:
        """Wait for the first answer after a moment to a photo whose first match fits.

        Raises:
            TimeoutError: there is none within `patience_s`.
        """
        at = len(self.answers)
        while at and self.answers[at - 1].came_at > moment:
            at -= 1
        while True:
            for answer in itertools.islice(self.answers, at, None):
                at += 1
                if answer.photo == photo and answer.came_at > moment and fits(answer.first):
                    return answer
            if time.time() - moment > patience_s:
                raise TimeoutError(f"photo {photo} was not answered as expected within {patience_s:g} s")
            time.sleep(0.005)

    def ask(self, photo: int, **parameters: Any) -> tuple[Answer, list[str]]:
        """Ask once, besides; return the answer and the keys of all matches."""
        began = time.perf_counter()
        reply = self._session.post(
            f"{self._url}/v1/query",
            params=parameters,
            data=self._photos[photo],
            headers={"content-type": "image/jpeg"},
            timeout=60,
        )
        ms = 1e3 * (time.perf_counter() - began)
        came_at = time.time()
        nothing: dict[str, Any] = {"store_version": 0, "matches": []}
        answer = reply.json() if reply.status_code == 200 else nothing
        keys = [match["image_id"] for match in answer["matches"]]
        first = keys[0] if keys else ""
        return Answer(photo, came_at, ms, reply.status_code, answer["store_version"], first), keys

    def _run(self) -> None:
        turns = itertools.cycle(range(len(self._photos)))
        while not self._stop.is_set():
            with self._turn:
                wanted = self.wanted
                self.answers.append(self.ask(next(turns) if wanted is None else wanted)[0])
            self._stop.wait(0.001)  # whoever waits for a pause comes first

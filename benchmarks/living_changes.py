"""Commits and deletions while a service answers, and the seconds until its answers have them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.asking import Answer, Asking
from benchmarks.indexed_photos import read_photos
from benchmarks.living_store import LivingStore, drawn_id

__all__ = ["Changes", "Done", "write"]

COMMIT_ROWS, DELETED = 1000, 50
DELETE_EVERY, COMPACT_EVERY = 4, 12
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Done:
    """What the writer did: when it had, the version that it made, and how many rows were drawn by then."""

    at: float
    version: int
    drawn: int


def write(folder: str, scratch: str, rows: int, orders: Any, done: Any) -> None:
    """Do what is ordered, until told None."""
    photos = read_photos(Path(scratch))
    city = LivingStore(Path(folder), rows, width=photos.descriptors.shape[1], photos=photos)
    for what, value in iter(orders.get, None):
        if what == "commit":
            city.grow(COMMIT_ROWS, last=photos.descriptors[value])
        elif what == "delete":
            city.delete(value)
        else:
            city.store.compact(keep_versions_s=600)
        done.put(Done(time.time(), city.store.version, city.drawn))


@dataclass
class Planted:
    """A photo's row: its key, the version that has it first, and the one that has it no more."""

    key: str
    since: int
    until: float = math.inf

    def is_in(self, version: int) -> bool:
        """Return whether a version has the row."""
        return self.since <= version < self.until


@dataclass
class Changes:
    """Changes of a served store, each waited for until an answer has it.

    Attributes:
        asking: The client.
        order: Has the writer do something, and returns what it did.
        every_s: From one commit to the next.
        rows: Of the store before the first commit.
        found_s: From the return of each commit to the first answer with its row.
        gone_s: From the return of each deletion of a photo's row to the first answer without.
        planted: By number of the photo.
    """

    asking: Asking
    order: Callable[[str, Any], Done]
    every_s: float
    rows: int
    found_s: list[float] = field(default_factory=list)
    gone_s: list[float] = field(default_factory=list)
    planted: dict[int, Planted] = field(default_factory=dict)

    def follow(self, goes_on: Callable[[float], bool]) -> None:
        """Change the store every so many seconds, while `goes_on` of the seconds since the beginning."""
        began = time.monotonic()
        for number in range(1_000_000):
            due = number * self.every_s
            if not goes_on(max(due, time.monotonic() - began)):
                return
            time.sleep(max(0.0, began + due - time.monotonic()))
            photo = self._commit()
            if number % DELETE_EVERY == 1:
                self._delete(photo)
            if number % COMPACT_EVERY == COMPACT_EVERY // 2:
                self.order("compact", None)

    def _commit(self) -> int:
        photo = len(self.found_s)
        self.asking.wanted = photo
        done = self.order("commit", photo)
        key = drawn_id(done.drawn - 1)
        self.planted[photo] = Planted(key, done.version)
        answer = self.asking.first_after(done.at, photo, lambda first: first == key, PATIENCE_S)
        self.found_s.append(answer.came_at - done.at)
        self.asking.wanted = None
        return photo

    def _delete(self, photo: int) -> None:
        planted = self.planted[photo]
        some = np.random.default_rng(photo).integers(self.rows, size=DELETED - 1).tolist()
        self.asking.wanted = photo
        done = self.order("delete", [int(planted.key[-12:-4]), *some])
        planted.until = done.version
        answer = self.asking.first_after(done.at, photo, lambda first: first != planted.key, PATIENCE_S)
        self.gone_s.append(answer.came_at - done.at)
        self.asking.wanted = None

    def wrong(self, answers: list[Answer]) -> int:
        """Return how many answers failed, or have another first match than their version asks for."""
        by_key = {each.key: each for each in self.planted.values()}
        return sum(answer.status != 200 or not self._is_right(answer, by_key) for answer in answers)

    def _is_right(self, answer: Answer, by_key: dict[str, Planted]) -> bool:
        planted = self.planted.get(answer.photo)
        if planted is not None and planted.is_in(answer.version):
            return answer.first == planted.key
        other = by_key.get(answer.first)  # a row of a similar photo
        return other is None or other.is_in(answer.version)

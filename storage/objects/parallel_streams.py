"""Reads several streams in threads, some items ahead, and yields what they give in the streams' order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["in_parallel"]

_Item = TypeVar("_Item")


def in_parallel(
    streams: Iterable[Callable[[], Iterator[_Item]]], *, at_once: int, ahead: int
) -> Iterator[_Item]:
    """Yield the items of one stream after the other, while those after it are already read.

    Args:
        streams: Each starts one; called in a thread.
        at_once: Streams that are read at the same time, each in a thread.
        ahead: Items of each that wait to be taken.

    Raises:
        Exception: what a stream raised, in its place.
    """
    stopped = threading.Event()
    waiting = iter(streams)
    started: list[_Reader[_Item]] = []

    def start() -> None:
        if (stream := next(waiting, None)) is not None:
            started.append(_Reader(stream, ahead, stopped))

    for _ in range(at_once):
        start()
    try:
        while started:
            yield from started.pop(0).items()
            start()
    finally:
        stopped.set()


class _Reader(Generic[_Item]):
    """Reads one stream in a thread."""

    def __init__(self, stream: Callable[[], Iterator[_Item]], ahead: int, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._items: queue.Queue[tuple[_Item] | BaseException | None] = queue.Queue(ahead)
        threading.Thread(target=self._run, args=(stream,), name="stream", daemon=True).start()

    def items(self) -> Iterator[_Item]:
        while (item := self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]

    def _run(self, stream: Callable[[], Iterator[_Item]]) -> None:
        last: BaseException | None = None
        try:
            for item in stream():
                if not self._put((item,)):
                    return
        except BaseException as error:
            last = error
        self._put(last)

    def _put(self, item: tuple[_Item] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

"""Answers with places: what was measured about a store is read once and followed while it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from serving.answer import Match
from serving.places.evidence import Evidence
from serving.places.own_photos import OwnPhotos
from serving.places.position import locate
from serving.places.signs import SIGNS, signs_of
from storage.calibration_file import OWN_PHOTOS_FILE
from storage.card import Card
from storage.errors import StoreError

__all__ = ["MeasuredStore", "Places"]

LOG = logging.getLogger(__name__)

_CHECK_S = 1.0  # between two looks at the files
_RATIO = SIGNS.index("ratio")


class MeasuredStore(Protocol):
    """The part of a store that places are made with."""

    def measured(self, name: str) -> dict[str, Any] | None:
        """Return the values of a file, see `StoreReader.measured`."""

    def measured_stamp(self, name: str) -> object:
        """Return what changes whenever a file is replaced."""


class Places:
    """Makes the places of answers from one store; safe to share between threads.

    A file that cannot be used is as good as none, and logged once: answers never fail because of it.

    Args:
        store: The store; only its measured files are read.
        clock: Seconds.
    """

    def __init__(self, store: MeasuredStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._own_photos = _Followed(store, OWN_PHOTOS_FILE, OwnPhotos.from_dict, clock)

    def place(self, ranked: Sequence[Match], card: Card) -> dict[str, Any] | None:
        """Return the place of an answer as JSON; None where no candidate has a position.

        Args:
            ranked: All candidates, the best first.
            card: Of the version that was searched.
        """
        evidence = Evidence.of(ranked)
        if evidence is None:
            return None
        own = self._own_photos.value
        if own is not None and not own.fits(card):
            own = None
        located = locate(evidence, None if own is None else own.spacing_m).to_dict()
        signs = signs_of(evidence)
        radius_m = None if own is None else own.radius_m(float(signs[_RATIO]), evidence.kind)
        return {
            "position": located["position"],
            "radius_m": None if radius_m is None else round(radius_m, 1),
            "heading_deg": located["heading_deg"],
            "probability_right": None,
            "known": None,
            "evidence": located["evidence"],
            "spread_m": located["spread_m"],
            "calibrated": False,
        }


class _Followed:
    """A file of a store that may be replaced while it is used."""

    def __init__(
        self,
        store: MeasuredStore,
        name: str,
        parse: Callable[[dict[str, Any]], Any],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._name = name
        self._parse = parse
        self._clock = clock
        self._lock = threading.Lock()
        self._checked_at: float | None = None
        self._stamp: object = None
        self._value: Any = None

    @property
    def value(self) -> Any:
        """What the file says; None where there is none, or none that can be used."""
        with self._lock:
            now = self._clock()
            if self._checked_at is None or now - self._checked_at >= _CHECK_S:
                self._checked_at = now
                stamp = self._store.measured_stamp(self._name)
                if stamp != self._stamp:
                    self._stamp, self._value = stamp, self._read()
            return self._value

    def _read(self) -> Any:
        try:
            values = self._store.measured(self._name)
            return None if values is None else self._parse(values)
        except (StoreError, ValueError) as error:
            LOG.warning("%s cannot be used and is ignored: %s", self._name, error)
            return None

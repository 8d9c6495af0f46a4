"""Answers with places: what was measured about a store is read once and followed while it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from serving.answer import Match, unknown_place
from serving.places.calibration import Calibration, is_known
from serving.places.conditions import ScoreConditions
from serving.places.errors import NotCalibrated
from serving.places.evidence import Evidence
from serving.places.own_photos import OwnPhotos
from serving.places.position import locate
from serving.places.rerank_rule import RerankRule
from serving.places.signs import SIGNS, signs_of
from storage.calibration_file import CALIBRATION_FILE, OWN_PHOTOS_FILE
from storage.card import Card
from storage.errors import StoreError

__all__ = ["Asked", "MeasuredStore", "PlaceAnswer", "Places"]

LOG = logging.getLogger(__name__)

_NARROWED = "a filter or a prior changed what was searched"
_BY_RULE = "re-ranking follows a rule (auto), and what was calibrated are the answers to all queries"
_LEFT_OUT = (
    "the rule of re-ranking (auto) left this query as the first stage ordered it, and what was calibrated "
    "are re-ranked answers"
)
_NO_CANDIDATE = "there is no candidate, and a calibration is about the position of the first answer"
_NO_POSITION = "no candidate has a position, and a calibration is about the position of the first answer"
_CHECK_S = 1.0  # between two looks at the files
_RATIO = SIGNS.index("ratio")


class MeasuredStore(Protocol):
    """The part of a store that places are made with."""

    def measured(self, name: str) -> dict[str, Any] | None:
        """Return the values of a file, see `StoreReader.measured`."""

    def measured_stamp(self, name: str) -> object:
        """Return what changes whenever a file is replaced."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a query asks of its place.

    Attributes:
        conditions: What its scores are made with; None: no calibration is used.
        rows: Rows of the version that was searched.
        search_method: How it was searched. Another method than at calibration changes no score, but may leave
            out other candidates, so that nothing is guaranteed.
        max_wrong: Share of wrong answers among those called known; None: that of the calibration.
        narrowed: Whether a filter or a prior changed what was searched, so that nothing is guaranteed.
        by_rule: Whether the rule of `--rerank auto` chose what is re-ranked, or what comes first: the answers
            called known are others than those that were calibrated, so that nothing is guaranteed either.
        left_out: Whether that rule left the query out of re-ranking, so that its scores are not those that
            were calibrated.
    """

    conditions: ScoreConditions | None = None
    rows: int = 0
    search_method: str | None = None
    max_wrong: float | None = None
    narrowed: bool = False
    by_rule: bool = False
    left_out: bool = False


class PlaceAnswer(NamedTuple):
    """The place of an answer, and what is to be said about its calibration, both as JSON."""

    place: dict[str, Any]
    calibration: dict[str, Any]


class Places:
    """Makes the places of answers from one store; safe to share between threads.

    A file that cannot be used is as good as none, and logged once: answers never fail because of it.

    Args:
        store: The store; only its measured files are read.
        clock: Seconds.
    """

    def __init__(self, store: MeasuredStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._own_photos = _Followed(store, OWN_PHOTOS_FILE, OwnPhotos.from_dict, clock)
        self._calibration = _Followed(store, CALIBRATION_FILE, Calibration.from_dict, clock)

    def calibration(self, asked: Asked) -> tuple[Calibration | None, str | None]:
        """Return the calibration that holds for a query, or None and why there is none.

        Raises:
            NotCalibrated: none holds, and the query asks for a share of wrong answers.
        """
        calibration: Calibration | None = self._calibration.value
        why = "it was never calibrated"
        if calibration is not None and asked.conditions is not None:
            invalid = calibration.why_invalid(asked.conditions, asked.rows)
            if invalid is None and not asked.left_out:
                calibration.promise(asked.max_wrong)  # raises where it was not promised
                return calibration, None
            why = _LEFT_OUT if invalid is None else f"its calibration is not valid any more: {invalid}"
        if asked.max_wrong is not None:
            raise NotCalibrated(
                f"at most {asked.max_wrong:g} wrong cannot be kept by this store: {why}: run placeray "
                "calibrate on it, or leave --max-wrong out"
            )
        return None, why

    def rerank_rule(self, asked: Asked) -> RerankRule | None:
        """Return what calibration found out about re-ranking; None where no calibration holds.

        Args:
            asked: With the conditions of a query that is re-ranked.
        """
        calibration: Calibration | None = self._calibration.value
        if calibration is None or asked.conditions is None:
            return None
        return calibration.rerank if calibration.why_invalid(asked.conditions, asked.rows) is None else None

    def answer(self, ranked: Sequence[Match], card: Card, asked: Asked) -> PlaceAnswer:
        """Return the place of an answer; one without a position where no candidate has any.

        No calibration holds for that one: it was made of answers whose distance to the truth can be measured,
        and says nothing about images without a position.

        Args:
            ranked: All candidates that it is made of, the best first.
            card: Of the version that was searched.
            asked: What the query asks for.

        Raises:
            NotCalibrated, LevelNotPromised: the share of wrong answers that is asked for cannot be kept.
        """
        calibration, why = self.calibration(asked)
        exists = {"exists": self._calibration.value is not None}
        evidence = Evidence.of(ranked)
        if evidence is None:
            if calibration is not None:
                why = _NO_POSITION if ranked else _NO_CANDIDATE
            return PlaceAnswer(unknown_place(), _about(None, why, asked) | exists)
        about = _about(calibration, why, asked) | exists
        own: OwnPhotos | None = self._own_photos.value
        if own is not None and not own.fits(card):
            own = None
        located = locate(evidence, None if own is None else own.spacing_m).to_dict()
        signs = signs_of(evidence)
        radius_m = None if own is None else own.radius_m(float(signs[_RATIO]), evidence.kind)
        probability, known = None, None
        if calibration is not None:
            score, probability = calibration.probability_of(signs)
            known = is_known(calibration.promise(asked.max_wrong), score)
            radius_m = calibration.radius_m(score)
        return PlaceAnswer(
            {
                "position": located["position"],
                "radius_m": None if radius_m is None else round(radius_m, 1),
                "heading_deg": located["heading_deg"],
                "probability_right": None if probability is None else round(probability, 4),
                "known": known,
                "evidence": located["evidence"],
                "spread_m": located["spread_m"],
                "calibrated": calibration is not None,
            },
            about,
        )


def _about(calibration: Calibration | None, why: str | None, asked: Asked) -> dict[str, Any]:
    """Return what an answer says about its calibration."""
    if calibration is None:
        return {"valid": False, "reason": why, "max_wrong": None, "confidence": None, "guaranteed": False}
    reason = _why_not_guaranteed(calibration, asked)
    return {
        "valid": True,
        "reason": reason,
        "max_wrong": calibration.promise(asked.max_wrong).level,
        "confidence": calibration.confidence,
        "guaranteed": reason is None,
    }


def _why_not_guaranteed(calibration: Calibration, asked: Asked) -> str | None:
    """Return why a calibration that holds for the scores promises nothing; None where it does."""
    if asked.narrowed:
        return _NARROWED
    if asked.by_rule:
        return _BY_RULE
    if asked.search_method != calibration.search_method:
        calibrated = calibration.search_method or "one that the calibration does not name"
        return (
            f"the search method is {asked.search_method} instead of {calibrated}, and may leave out other "
            "candidates than at calibration"
        )
    return None


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

"""The result of a query: ranked matches, their JSON, and their table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from serving.matching_options import ScoreKind
from storage.position import Position
from storage.records import Candidate, ImageRecord

__all__ = ["Match", "PlaceRecord", "QueryResult", "rank", "unknown_place"]


def unknown_place() -> dict[str, Any]:
    """Return the place of an answer none of whose candidates has a position: nothing is claimed about it."""
    return {
        "position": None,
        "radius_m": None,
        "heading_deg": None,
        "probability_right": None,
        "known": None,
        "evidence": [],
        "spread_m": None,
        "calibrated": False,
    }


@dataclass(frozen=True)
class PlaceRecord:
    """A stored image as described in JSON.

    `ImageRecord`, which results of the engine hold, has these three attributes and more.

    Attributes:
        image_id: Primary key in the store.
        uri: Path or URI that the image was indexed from.
        position: Where it was taken, without the UTM zone, which the JSON lacks.
    """

    image_id: str
    uri: str
    position: Position


@dataclass(frozen=True)
class Match:
    """One ranked place.

    Attributes:
        rank: 1 for the best.
        record: The stored image; a `PlaceRecord` where the result was read from JSON.
        similarity: Cosine similarity of the global descriptors, -1..1.
        mutual_matches: Mutual nearest neighbours between the local features; None where not re-ranked.
        score: What re-ranked matches are ordered by, see `score_kind`; None where not re-ranked. The rule of
            `--rerank auto` may blend the similarity into the order, not into this score.
        score_kind: `count`, the number of mutual matches, or `votes`, see `models.matching.votes`.
        prior_weight: By which a prior multiplied the score, or lowered the similarity that ranks where
            nothing is re-ranked, see `serving.priors.soft_prior`; None without a prior.
    """

    rank: int
    record: ImageRecord | PlaceRecord
    similarity: float
    mutual_matches: int | None
    score: float | None = None
    score_kind: ScoreKind | None = None
    prior_weight: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the match as JSON of the command line and HTTP."""
        position = self.record.position
        values = {
            "rank": self.rank,
            "image_id": self.record.image_id,
            "uri": self.record.uri,
            "lat": position.lat,
            "lon": position.lon,
            "utm_e": position.utm_e,
            "utm_n": position.utm_n,
            "similarity": round(self.similarity, 6),
            "mutual_matches": self.mutual_matches,
            "score": None if self.score is None else round(self.score, 4),
            "score_kind": self.score_kind,
        }
        if self.prior_weight is not None:
            values["prior_weight"] = round(self.prior_weight, 4)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Match:
        """Create a match from `to_dict`; its record is a `PlaceRecord`.

        Raises:
            KeyError: a value is missing.
        """
        record = PlaceRecord(values["image_id"], values["uri"], Position.of(values))
        count, score = values["mutual_matches"], values.get("score")
        about = values.get("score_kind"), values.get("prior_weight")
        return cls(values["rank"], record, values["similarity"], count, score, *about)


@dataclass(frozen=True, repr=False)
class QueryResult:
    """The result of one query.

    Attributes:
        model: Name of the model that answered.
        store_version: The store version that was searched.
        degraded: Whether corrupt rows or features were left out; the rest is right.
        matches: Best first.
        timings_ms: Milliseconds for decode, extract, search, fetch, rerank and total.
        reranked: Number of candidates that were matched, where the matching options allow candidates to be
            skipped; None otherwise.
        place: Where the photo was taken, made of all candidates, see `serving.places`; where none of them has
            a position, or there is none, its `position` and all that follows from it is None, see
            `unknown_place`.
        calibration: What is to be said about the calibration of `place`: whether it is valid, or why not.
        request_id: Of the service; None for a result of the engine.
        considered: How many stored images the filter left; None without one.
    """

    model: str
    store_version: int
    degraded: bool
    matches: tuple[Match, ...]
    timings_ms: dict[str, float]
    reranked: int | None = None
    request_id: str | None = None
    place: dict[str, Any] = field(default_factory=unknown_place)
    calibration: dict[str, Any] | None = None
    considered: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON of the command line and HTTP."""
        answer: dict[str, Any] = {} if self.request_id is None else {"request_id": self.request_id}
        answer |= {"model": self.model, "store_version": self.store_version, "degraded": self.degraded}
        if self.reranked is not None:
            answer["reranked"] = self.reranked
        if self.considered is not None:
            answer["considered"] = self.considered
        answer |= {"place": self.place, "calibration": self.calibration}
        answer["matches"] = [match.to_dict() for match in self.matches]
        answer["timings_ms"] = {name: round(value, 3) for name, value in self.timings_ms.items()}
        return answer

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QueryResult:
        """Create a result from the JSON of the command line or the service; unknown keys are ignored.

        Similarities and timings are as rounded in the JSON, and each record is a `PlaceRecord`.

        Raises:
            KeyError: a value is missing.
        """
        return cls(
            model=values["model"],
            store_version=values["store_version"],
            degraded=values["degraded"],
            matches=tuple(Match.from_dict(match) for match in values["matches"]),
            timings_ms=dict(values["timings_ms"]),
            reranked=values.get("reranked"),
            request_id=values.get("request_id"),
            place=values.get("place") or unknown_place(),  # a service before version 0.2 gives none
            calibration=values.get("calibration"),
            considered=values.get("considered"),
        )

    def __repr__(self) -> str:
        parts = [f"{len(self.matches)} {'match' if len(self.matches) == 1 else 'matches'}"]
        if self.matches:
            best = self.matches[0]
            score = f"similarity {best.similarity:.3f}"
            if best.mutual_matches is not None:
                score = f"{best.mutual_matches} mutual matches"
            if best.score_kind == "votes" and best.score is not None:
                score = f"{best.score:.1f} votes, {score}"
            parts.append(f"best {best.record.image_id!r} {score}")
        if "total" in self.timings_ms:
            parts.append(f"{self.timings_ms['total']:.0f} ms")
        if self.considered is not None:
            parts.append(f"{self.considered} considered")
        if self.degraded:
            parts.append("degraded")
        return f"QueryResult({', '.join(parts)})"

    def _repr_html_(self) -> str:
        columns: tuple[str, ...] = (
            "rank",
            "image_id",
            "lat",
            "lon",
            "utm_e",
            "utm_n",
            "similarity",
            "mutual_matches",
        )
        if any(match.score_kind == "votes" for match in self.matches):
            columns += ("score",)
        head = "".join(f"<th>{name}</th>" for name in columns)
        rows = [match.to_dict() for match in self.matches]
        cells = ["".join(f"<td>{_cell(row[name])}</td>" for name in columns) for row in rows]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{escape(repr(self))}</p>{table}"


def rank(
    hits: list[Candidate],
    counts: Sequence[int | None],
    scores: Sequence[float | None] | None = None,
    score_kind: ScoreKind = "count",
    prior_weights: Sequence[float] | None = None,
    order_by: Sequence[float | None] | None = None,
) -> tuple[Match, ...]:
    """Order search hits by score, or by other numbers; ties keep the order of similarity.

    A hit whose score is None (beyond the candidates, or with unreadable features) keeps its position in the
    order of the global descriptors.

    Args:
        hits: K search hits, most similar first.
        counts: Mutual-nearest-neighbour counts of the first hits, at most K.
        scores: What the matches carry, and are ordered by unless `order_by` is given, as many as counts;
            None: the counts.
        score_kind: What the scores are.
        prior_weights: What a prior gave the hits, K of them; the scores are weighed already. None: no prior.
        order_by: Numbers in place of the scores, as many, None where these are; only the order follows them.
    """
    counts = [*counts, *[None] * (len(hits) - len(counts))]
    scores = counts if scores is None else [*scores, *[None] * (len(hits) - len(scores))]
    keys = scores if order_by is None else order_by
    scored = [i for i, score in enumerate(scores) if score is not None]
    best_first = iter(sorted(scored, key=lambda i: -(keys[i] or 0)))
    order = [i if scores[i] is None else next(best_first) for i in range(len(hits))]
    return tuple(
        Match(
            rank=place + 1,
            record=hits[i].record,
            similarity=hits[i].similarity,
            mutual_matches=counts[i],
            score=None if (score := scores[i]) is None else float(score),
            score_kind=None if score is None else score_kind,
            prior_weight=None if prior_weights is None else prior_weights[i],
        )
        for place, i in enumerate(order)
    )


def _cell(value: object) -> str:
    return "" if value is None else escape(f"{value:.10g}" if isinstance(value, float) else str(value))

"""The result of an evaluation: a mapping of its values, with every query's outcome as an attribute."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from pipelines.evaluation.describe import STAGE_NAMES, describe_conditions
from serving.answer import Match
from storage.position import Position

__all__ = ["RECALL_AT", "Evaluation", "QueryOutcome"]

RECALL_AT = (1, 5, 10, 20)


@dataclass(frozen=True)
class QueryOutcome:
    """One query, its answers, and which of them were right.

    Attributes:
        uri: The query photo.
        position: Where it was taken.
        rejected: Why the photo could not be used, or None.
        positives: Database images within the threshold.
        matches: Answers in their final order, best first.
        first_hit_global: Rank (from 1) of the first right answer by global descriptor, or None.
        first_hit_reranked: The same in the final order, that of the global descriptors without re-ranking.
    """

    uri: str
    position: Position
    rejected: str | None
    positives: int
    matches: tuple[Match, ...]
    first_hit_global: int | None
    first_hit_reranked: int | None


@dataclass(frozen=True, repr=False)
class Evaluation(Mapping[str, Any]):
    """Recalls in percent, seconds, and every query's outcome.

    As a mapping it holds everything but the outcomes, plain values for JSON: `dict(evaluation)`.

    Attributes:
        dataset: Name of the data set.
        protocol: Protocol in words: threshold, queries, candidates, matching.
        model: Model of the store.
        store_version: Version that answered.
        queries: Queries scored.
        database: Images in the store.
        recall: `{"global": {"1": ...}, "reranked": {"1": ...}}` in percent; only `global` without
            re-ranking.
        seconds: Seconds per stage over all queries, and in total.
        queries_without_positive: Scored queries with nothing right in the database; they count as misses.
        queries_without_coordinates: Queries left out because they cannot be scored.
        queries_rejected: Scored queries whose photo could not be used; they count as misses.
        database_without_coordinates: Stored images that can never count as right.
        degraded: Queries answered while something stored could not be used.
        outcomes: One for each scored query.
        matched_per_query: Candidates whose matches were counted, on average over the queries answered.
        conditions: What another run must have in common, see `pipelines.evaluation.conditions`.
    """

    dataset: str
    protocol: str
    model: str
    store_version: int
    queries: int
    database: int
    recall: dict[str, dict[str, float]]
    seconds: dict[str, float]
    queries_without_positive: int
    queries_without_coordinates: int
    queries_rejected: int
    database_without_coordinates: int
    degraded: int
    outcomes: tuple[QueryOutcome, ...] = field(repr=False)
    matched_per_query: float = 0.0
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self) if field.name != "outcomes"]

    def __repr__(self) -> str:
        first = ", ".join(
            f"{values['1']:.1f} % {STAGE_NAMES[stage]}" for stage, values in self.recall.items()
        )
        return f"Evaluation({self.dataset}: R@1 {first}; {self.queries} queries, {self.database} images)"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>R@{k}</th>" for k in RECALL_AT)
        rows = ""
        for stage, values in self.recall.items():
            cells = "".join(f"<td>{values[str(k)]:.1f}</td>" for k in RECALL_AT)
            rows += f"<tr><th>{STAGE_NAMES[stage]}</th>{cells}</tr>"
        caption = f"{self.dataset}: {self.queries} queries, {self.database} images, model {self.model}"
        table = f"<table><thead><tr><th>recall in %</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        conditions = "; ".join(f"{name} {value}" for name, value in describe_conditions(self.conditions))
        return f"<p>{escape(caption)}</p>{table}<p>{escape(self.protocol)}</p><p>{escape(conditions)}</p>"

"""The result of an evaluation: a mapping of its values, with every query's outcome as an attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.evaluation.describe import STAGE_NAMES, describe_conditions, interval_text
from pipelines.evaluation.field_mapping import FieldMapping
from pipelines.evaluation.outcome import RECALL_AT, QueryOutcome

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pipelines.evaluation.arrays import EvaluationArrays

__all__ = ["RECALL_AT", "Evaluation", "QueryOutcome"]


@dataclass(frozen=True, repr=False)
class Evaluation(FieldMapping):
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
        places: Places that the queries are of; intervals draw whole places.
        intervals: 95 % intervals of `recall`, `mean_average_precision` and `median_error_m` by the same keys,
            each `[low, high]`, see `pipelines.evaluation.intervals`; under `place` and `known` those of the
            fields of these names, where these have figures.
        mean_average_precision: In percent, by stage and depth as `recall`; as MSLS defines it.
        median_error_m: Median distance of the first answer in metres by stage; None where half of the
            queries have no answer.
        by_condition: Recall of the queries of each condition that names, folders or columns tell.
        by_density: Recall by the number of right images in the database.
        place: How far off the places of the answers are, see `pipelines.evaluation.place_figures`.
        known: How far calibrated answers can be trusted, see `pipelines.evaluation.known_figures`; empty
            without a valid calibration.
        rerank: What `--rerank auto` left out and the time that saved; empty for other values.
        store_versions: Versions of the store that answered; more than one where it changed during the run.
        limited: What a service's limits left out, empty without: `max_top_k`, the places that it lists;
            `depths_left_out`, the K that no figure is of; `candidates_asked` and `max_candidates`;
            `candidates_listed`, where fewer candidates are listed than re-ranked.
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
    places: int = 0
    intervals: Mapping[str, Any] = field(default_factory=dict)
    mean_average_precision: Mapping[str, Any] = field(default_factory=dict)
    median_error_m: Mapping[str, float | None] = field(default_factory=dict)
    by_condition: Sequence[Mapping[str, Any]] = ()
    by_density: Sequence[Mapping[str, Any]] = ()
    place: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    rerank: Mapping[str, Any] = field(default_factory=dict)
    store_versions: Sequence[int] = ()
    limited: Mapping[str, Any] = field(default_factory=dict)

    not_listed: ClassVar[str] = "outcomes"

    @property
    def arrays(self) -> EvaluationArrays:
        """Ranks, distances, similarities, matches and timings of every query as arrays."""
        from pipelines.evaluation.arrays import arrays_of

        return arrays_of(self.outcomes)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per query, with the columns of `pipelines.evaluation.query_table`."""
        from pipelines.evaluation.query_table import query_table

        frame: pd.DataFrame = query_table(self.outcomes, dict(self)).to_pandas()
        return frame

    def plot(self) -> Figure:
        """Draw recall by depth with its intervals, and the share of queries by error; needs matplotlib.

        Raises:
            PlottingUnavailable: matplotlib is not installed.
        """
        from pipelines.evaluation.plots import plot_evaluation

        return plot_evaluation(self, self.outcomes)

    def __repr__(self) -> str:
        first = ", ".join(
            f"{values['1']:.1f} % {STAGE_NAMES[stage]}" for stage, values in self.recall.items()
        )
        return f"Evaluation({self.dataset}: R@1 {first}; {self.queries} queries, {self.database} images)"

    def _repr_html_(self) -> str:
        depths = list(self.recall["global"])
        head = "".join(f"<th>R@{k}</th>" for k in depths)
        rows = ""
        for stage, values in self.recall.items():
            cells = "".join(f"<td>{values[k]:.1f}</td>" for k in depths)
            rows += f"<tr><th>{STAGE_NAMES[stage]}</th>{cells}</tr>"
            if ends := self.intervals.get("recall", {}).get(stage):
                cells = "".join(f"<td>{interval_text(ends[k])}</td>" for k in depths)
                rows += f"<tr><th>95 % interval</th>{cells}</tr>"
        caption = f"{self.dataset}: {self.queries} queries, {self.database} images, model {self.model}"
        table = f"<table><thead><tr><th>recall in %</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        conditions = "; ".join(f"{name} {value}" for name, value in describe_conditions(self.conditions))
        return f"<p>{escape(caption)}</p>{table}<p>{escape(self.protocol)}</p><p>{escape(conditions)}</p>"

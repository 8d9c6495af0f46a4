"""Two evaluations of the same queries: paired differences with intervals, sign tests, photos won and lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.evaluation.field_mapping import FieldMapping
from pipelines.evaluation.intervals import paired_interval
from pipelines.evaluation.query_table import query_table, read_query_table
from pipelines.evaluation.result import Evaluation
from pipelines.evaluation.sign_test import p_value_of
from pipelines.sources import SourceError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pipelines.evaluation.arrays import ComparisonArrays

__all__ = ["Comparison", "NotComparable", "compare"]

ORDERS = {"global": "first_hit_global", "final": "first_hit_reranked"}
_MAX_LISTED = 200


class NotComparable(SourceError):
    """Two evaluations are not of the same queries, or were scored by different rules."""

    reason = "not_comparable"


@dataclass(frozen=True, repr=False)
class Comparison(FieldMapping):
    """What changes from a first evaluation to a second; a mapping of plain values, `dict(comparison)`.

    Attributes:
        first: Data set, protocol, model, recall and conditions of the first evaluation.
        second: The same of the second.
        queries: Queries that both answered or tried to.
        places: Places that they are of.
        differences: For each order (`global`, and `final` as users see it) and depth K: `first` and `second`
            recall in percent, `difference` in points with its 95 % `interval`, `won` and `lost` photos,
            `places_won` and `places_lost`, and `p_value`, the sign test over places.
        won: Photos whose first answer is right only in the second, in the final order.
        lost: Photos whose first answer is right only in the first.
        conditions: Conditions that differ, `{name: [first, second]}`.
        shared: Conditions that are the same in both, by name.
        won_listed: How many photos `won` lists; fewer than those won at 1 in the final order where it is cut.
        lost_listed: The same of `lost`.
    """

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    queries: int
    places: int
    differences: Mapping[str, Mapping[str, Mapping[str, Any]]]
    won: Sequence[Mapping[str, Any]]
    lost: Sequence[Mapping[str, Any]]
    conditions: Mapping[str, Sequence[Any]]
    shared: Mapping[str, Any]
    won_listed: int
    lost_listed: int
    table: pa.Table = field(repr=False)

    not_listed: ClassVar[str] = "table"

    def __repr__(self) -> str:
        return f"Comparison({self.headline()})"

    def headline(self) -> str:
        """Return the difference at the first answer in a sentence."""
        at_1 = self.differences["final"]["1"]
        low, high = at_1["interval"]
        ends = "" if low is None or high is None else f", 95 % interval {low:+.1f} to {high:+.1f}"
        return (
            f"R@1 {at_1['first']:.1f} to {at_1['second']:.1f} %: {at_1['difference']:+.1f} points{ends}; "
            f"{at_1['won']} photos won, {at_1['lost']} lost; p = {at_1['p_value']:.3g} over "
            f"{self.places} places"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(order)} R@{k}</th><td>{at['first']:.1f}</td><td>{at['second']:.1f}</td>"
            f"<td>{at['difference']:+.1f}</td><td>{interval_words(at['interval'])}</td>"
            f"<td>{at['won']}</td><td>{at['lost']}</td><td>{at['p_value']:.3g}</td></tr>"
            for order, depths in self.differences.items()
            for k, at in depths.items()
        )
        head = "".join(
            f"<th>{name}</th>"
            for name in ("", "first", "second", "difference", "95 % interval", "won", "lost", "p")
        )
        return f"<p>{escape(self.headline())}</p><table><tr>{head}</tr>{rows}</table>"

    @property
    def arrays(self) -> ComparisonArrays:
        """Ranks, errors, similarities, matches and timings of every query in both evaluations as arrays."""
        from pipelines.evaluation.arrays import comparison_arrays_of

        return comparison_arrays_of(self.table)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per query with what both evaluations found, columns `..._first` and `..._second`."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def plot(self) -> Figure:
        """Draw the differences and their intervals by depth; needs matplotlib.

        Raises:
            PlottingUnavailable: matplotlib is not installed.
        """
        from pipelines.evaluation.plots import plot_comparison

        return plot_comparison(self)


def compare(first: Evaluation | str | Path, second: Evaluation | str | Path) -> Comparison:
    """Compare two evaluations of the same queries.

    Args:
        first: An evaluation, or the folder that `--predictions` or `--report` wrote, or its queries.parquet.
        second: The other one.

    Raises:
        NotComparable: they are of other queries, or scored by different rules.
        SourceError: a folder holds no evaluation.
    """
    (one, of_first), (other, of_second) = map(_opened, (first, second))
    _require_one_rule(of_first["conditions"], of_second["conditions"])
    one, other = _paired(one, other)
    places = np.array(one["place"].to_pylist(), np.int64)
    differences = {
        order: {
            k: _difference(
                _hits(one, column, int(k)),
                _hits(other, column, int(k)),
                places,
                same=_same(one, other, order),
            )
            for k in of_first["recall"]["global"]
            if k in of_second["recall"]["global"]
        }
        for order, column in ORDERS.items()
    }
    was, now = (_hits(table, ORDERS["final"], 1) for table in (one, other))
    won, lost = _listed(one, other, now & ~was), _listed(one, other, was & ~now)
    conditions = of_first["conditions"], of_second["conditions"]
    return Comparison(
        first=_named(of_first),
        second=_named(of_second),
        queries=one.num_rows,
        places=len(np.unique(places)),
        differences=differences,
        won=won,
        lost=lost,
        conditions=_differing(*conditions),
        shared={
            name: value for name, value in conditions[0].items() if conditions[1].get(name, ...) == value
        },
        won_listed=len(won),
        lost_listed=len(lost),
        table=_joined(one, other),
    )


def interval_words(interval: Sequence[float | None]) -> str:
    """Return an interval of a difference in words; `-` where there is none."""
    low, high = interval
    return "-" if low is None or high is None else f"{low:+.1f} to {high:+.1f}"


def _opened(evaluation: Evaluation | str | Path) -> tuple[pa.Table, Mapping[str, Any]]:
    if isinstance(evaluation, Evaluation):
        return query_table(evaluation.outcomes, dict(evaluation)), dict(evaluation)
    return read_query_table(evaluation)


def _require_one_rule(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    rules = [(values.get("threshold_m"), values.get("frames")) for values in (first, second)]
    if rules[0] != rules[1]:
        names = [values.get("protocol") or f"{values.get('threshold_m'):g} m" for values in (first, second)]
        raise NotComparable(
            f"the first was scored by {names[0]} and the second by {names[1]}: evaluate both by one protocol"
        )


def _paired(one: pa.Table, other: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return both tables in the order of the first one's queries.

    Queries are the same where the content of their photos is, as folders move; else where their paths are.
    """
    for name in ("sha256", "query"):
        keys = [table[name].to_pylist() for table in (one, other)]
        if any(None in column or len(set(column)) != len(column) for column in keys):
            continue
        if set(keys[0]) == set(keys[1]):
            row_of = {key: row for row, key in enumerate(keys[1])}
            return one, other.take([row_of[key] for key in keys[0]])
    common = len(set(one["query"].to_pylist()) & set(other["query"].to_pylist()))
    raise NotComparable(
        f"the first evaluation has {one.num_rows} queries and the second {other.num_rows}, of which {common} "
        "are the same: evaluate both on the same queries"
    )


def _hits(table: pa.Table, column: str, k: int) -> NDArray[np.bool_]:
    return np.array([first is not None and first <= k for first in table[column].to_pylist()], np.bool_)


def _same(one: pa.Table, other: pa.Table, order: str) -> bool:
    """Return whether both evaluations answered every query alike, so that there is nothing to estimate."""
    best = ["best_id", "error_m_reranked"] if order == "final" else ["error_m_global"]
    names = [ORDERS[order], *best]
    return all(one[name].to_pylist() == other[name].to_pylist() for name in names)


def _difference(
    was: NDArray[np.bool_], now: NDArray[np.bool_], places: NDArray[np.int64], *, same: bool
) -> dict[str, Any]:
    paired = now.astype(np.float64) - was
    low, high = (0.0, 0.0) if same else paired_interval(paired, places)
    net = np.bincount(np.unique(places, return_inverse=True)[1], weights=paired)
    places_won, places_lost = int((net > 0).sum()), int((net < 0).sum())
    won, lost = int((now & ~was).sum()), int((was & ~now).sum())
    ends = [round(100.0 * end, 2) if np.isfinite(end) else None for end in (low, high)]
    return {
        "first": round(100.0 * float(was.mean()), 2),
        "second": round(100.0 * float(now.mean()), 2),
        "difference": round(100.0 * float(paired.mean()), 2),
        "interval": ends,
        "won": won,
        "lost": lost,
        "places_won": places_won,
        "places_lost": places_lost,
        "p_value": p_value_of(places_won, places_lost),
        "p_value_of_photos": p_value_of(won, lost),
    }


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    names = ("dataset", "protocol", "model", "store_version", "queries", "database", "recall", "conditions")
    return {name: values.get(name) for name in names}


def _listed(one: pa.Table, other: pa.Table, chosen: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the chosen queries with both first answers, at most `_MAX_LISTED`."""
    rows = np.flatnonzero(chosen)[:_MAX_LISTED]
    return [
        {
            "query": before["query"],
            "sha256": before["sha256"],
            **{
                name: {
                    "image_id": row["best_id"],
                    "uri": row["best_uri"],
                    "sha256": row["best_sha256"],
                    "error_m": None if row["error_m_reranked"] is None else round(row["error_m_reranked"], 2),
                    "first_hit": row["first_hit_reranked"],
                }
                for name, row in (("first", before), ("second", after))
            },
        }
        for before, after in zip(one.take(rows).to_pylist(), other.take(rows).to_pylist(), strict=True)
    ]


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = [*first, *(name for name in second if name not in first)]
    return {
        name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)
    }


def _joined(one: pa.Table, other: pa.Table) -> pa.Table:
    """Return one row per query: what is known of it, then what each evaluation found."""
    fixed = [name for name in one.column_names if name in ("query", "place", "lat", "lon", "utm_e", "utm_n")]
    columns = {name: one[name] for name in fixed}
    for name in one.column_names:
        if name.startswith(
            ("first_hit", "error_m", "best_", "similarity", "mutual", "score", "positives", "ms_")
        ):
            columns |= {f"{name}_first": one[name], f"{name}_second": other[name]}
    return pa.table(columns)

"""Figures of calibrated answers: how many are called known, how many of these are wrong, and reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.describe import in_brackets
from pipelines.evaluation.outcome import QueryOutcome

__all__ = [
    "BINS",
    "average_precision",
    "bins_of",
    "calibrated_columns",
    "describe_known",
    "known_figures",
    "most_wrong",
    "reliability_curve",
]

Floats = NDArray[np.float64]

BINS = 10


def known_figures(outcomes: Sequence[QueryOutcome]) -> dict[str, Any]:
    """Return the figures of `evaluate`'s JSON under `known`; empty where no answer was calibrated.

    A query without anything right in the database counts too: calling its answer known is wrong.

    Returns:
        `queries`: calibrated answers, which all other figures are of; `of`: all answers. The two differ
        where `--rerank auto` left queries out of re-ranking, and where no candidate has a position: such
        answers are not calibrated. `coverage`:
        share of the calibrated ones called known; `false_discovery_rate`: share of wrong ones among those,
        None where there are none; `auc_pr`: area under precision over recall when answers are ordered by
        probability (average precision); `ece`: expected calibration error in ten bins of equal width (Naeini
        et al. 2015). All of these between 0 and 1.
    """
    probability, right, known, _ = calibrated_columns(outcomes)
    if not len(probability):
        return {}
    off = sum(row["queries"] * abs(row["right"] - row["probability"]) for row in reliability_curve(outcomes))
    return {
        "queries": len(probability),
        "of": sum(outcome.place is not None for outcome in outcomes),
        "coverage": round(float(known.mean()), 4),
        "false_discovery_rate": round(float((~right[known]).mean()), 4) if known.any() else None,
        "auc_pr": None if (area := average_precision(probability, right)) is None else round(area, 4),
        "ece": round(off / len(right), 4),
    }


def reliability_curve(outcomes: Sequence[QueryOutcome]) -> list[dict[str, Any]]:
    """Return number, mean probability and share of right answers of each of ten bins that has any."""
    probability, right, _, _ = calibrated_columns(outcomes)
    bins = bins_of(probability)
    return [
        {
            "queries": int((bins == number).sum()),
            "probability": round(float(probability[bins == number].mean()), 4),
            "right": round(float(right[bins == number].mean()), 4),
        }
        for number in range(BINS)
        if (bins == number).any()
    ]


def most_wrong(outcomes: Sequence[QueryOutcome], *, count: int = 6) -> list[QueryOutcome]:
    """Return the queries whose wrong first answers were thought to be right with the highest probability."""
    wrong = [o for o in outcomes if _probability(o) is not None and not _is_right(o)]
    return sorted(wrong, key=lambda outcome: -(_probability(outcome) or 0.0))[:count]


def describe_known(figures: Mapping[str, Any], intervals: Mapping[str, Any] | None = None) -> str | None:
    """Return the figures in one line, with their intervals where given; None where there are none."""
    if not figures:
        return None
    ends = {
        name: f" ({each[0]:.3f} to {each[1]:.3f})" if each and None not in each else ""
        for name, each in (intervals or {}).items()
    }
    share = {
        name: in_brackets([100 * end for end in each]) if each and None not in each else ""
        for name, each in (intervals or {}).items()
    }
    wrong, coverage = figures["false_discovery_rate"], share.get("coverage", "")
    count, answers = figures["queries"], figures.get("of", figures["queries"])
    which = "" if count == answers else f"of {count} calibrated answers among {answers}: "
    of_wrong = share.get("false_discovery_rate", "")
    among = "" if wrong is None else f", {100 * wrong:.1f} %{of_wrong} of these wrong"
    ranked = "" if figures["auc_pr"] is None else f"; AUC-PR {figures['auc_pr']:.3f}{ends.get('auc_pr', '')}"
    return (
        f"{which}{100 * figures['coverage']:.1f} %{coverage} called known{among}{ranked}; "
        f"ECE {figures['ece']:.3f}{ends.get('ece', '')}"
    )


def calibrated_columns(
    outcomes: Sequence[QueryOutcome],
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Return probability, whether the first answer is right, known, and place of the calibrated answers."""
    kept = [outcome for outcome in outcomes if _probability(outcome) is not None]
    return (
        np.array([_probability(outcome) for outcome in kept], np.float64),
        np.array([_is_right(outcome) for outcome in kept], np.bool_),
        np.array([bool((outcome.place or {}).get("known")) for outcome in kept], np.bool_),
        np.array([outcome.cluster for outcome in kept], np.int64),
    )


def bins_of(probability: Floats) -> NDArray[np.int64]:
    """Return (N,) the bin of each probability."""
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def _probability(outcome: QueryOutcome) -> float | None:
    value = (outcome.place or {}).get("probability_right")
    return None if value is None else float(value)


def _is_right(outcome: QueryOutcome) -> bool:
    return outcome.first_hit_reranked == 1


def average_precision(probability: Floats, right: NDArray[np.bool_]) -> float | None:
    """Return the area under precision over recall of answers by probability; None where none is right."""
    if not right.any():
        return None
    order = np.argsort(-probability, kind="stable")
    hits = right[order]
    # Answers of equal probability are reached together.
    last = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)
    found = np.cumsum(hits)[last]
    gained = np.diff(np.concatenate([[0], found])) / right.sum()
    return float((gained * found / (last + 1)).sum())

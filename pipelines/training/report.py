"""The report of a training run: recall before and after, curves, and changed answers. Needs no network."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.images import ImageRejected
from models.images.photo_file import read_bytes
from pipelines.evaluation.describe import describe_conditions
from pipelines.evaluation.result import Evaluation
from pipelines.html_report import make_thumbnail, render
from pipelines.training.charts import LOSSES, RECALLS, make_chart
from pipelines.training.comparison import STAGES, describe_change
from storage.durable import replace_file

__all__ = ["write_training_report"]

Row = Mapping[str, float | str]

EXAMPLES = 8  # of each kind and stage
_THUMBNAIL_PX = 280
_NO_ANSWER = dict.fromkeys(("uri", "distance_m", "similarity", "mutual_matches", "rank_of_first_right"))


def write_training_report(
    folder: Path,
    *,
    before: Evaluation,
    after: Evaluation,
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write report.json and report.html, each whole or not at all.

    Args:
        folder: Destination; created if missing.
        before: The model that training began with, on the validation split.
        after: The trained model on the same queries.
        rows: The log of training, see `pipelines.training.log.COLUMNS`; a value may be absent or empty.
        settings: Settings and data of the run, by name.
        facts: Other facts of the run, by name.

    Returns:
        What report.json holds.

    Raises:
        ValueError: the evaluations are not of the same queries.
        OutOfSpace: the disk is full; an earlier report does not change.
    """
    described = describe_change(before, _in_order_of(before, after))
    for example in (*described["gained"], *described["lost"]):
        example |= {when: _NO_ANSWER | example[when] for when in ("before", "after")}
    curve = [{name: _number(one) for name, one in row.items() if one not in ("", None)} for row in rows]
    report: dict[str, Any] = _plain(described | {"curve": curve, "settings": settings, "facts": facts})
    page = _page(report)  # both files are made before either is written
    content = json.dumps(report, indent=2, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "report.json", content.encode())
    replace_file(folder / "report.html", page)
    return report


def _in_order_of(before: Evaluation, after: Evaluation) -> Evaluation:
    """Return `after` with its queries in the order of `before` where they are the same."""
    uris, by_uri = [one.uri for one in before.outcomes], {one.uri: one for one in after.outcomes}
    if sorted(uris) != sorted(one.uri for one in after.outcomes) or len(by_uri) < len(uris):
        return after
    return dataclasses.replace(after, outcomes=tuple(by_uri[uri] for uri in uris))


def _number(value: float | str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _plain(value: Any) -> Any:
    """Return plain values for JSON: NaN and infinity become null, objects of other types their text."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def _page(report: dict[str, Any]) -> bytes:
    rows = report["curve"]
    return render(
        "training.html",
        report=report,
        headline=_headline(report),
        stages=STAGES,
        recall_at=[int(k) for k in next(iter(report["recall"]["before"].values()))],
        conditions=_conditions(report["conditions"]),
        curves=[
            make_chart(rows, "Loss", "loss (no unit)", LOSSES),
            make_chart(
                rows, "Recall on the validation split", "recall (% of queries)", RECALLS, highest=100.0
            ),
        ],
        gained=_example_groups(report["gained"]),
        lost=_example_groups(report["lost"]),
        format_points=_format_points,
        format_value=_format_value,
    )


def _conditions(conditions: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value before and value after of every condition."""
    before, after = (dict(describe_conditions(conditions[when])) for when in ("before", "after"))
    return [(name, before.get(name, ""), value) for name, value in after.items()]


def _headline(report: dict[str, Any]) -> str:
    gain, changed = report["recall"]["gain"], report["changed"]
    if any(gain[stage]["1"] != 0 for stage in STAGES):
        words = [
            f"{_describe_gain(gain[stage]['1'])} {name}"
            for stage, name in (("reranked", "after re-ranking"), ("global", "by global descriptor"))
        ]
        return f"Fine-tuning {words[0]} and {words[1]} at the first answer (R@1)"
    moved = sum(changed[stage]["gained"] + changed[stage]["lost"] for stage in STAGES)
    if moved:
        return "Fine-tuning gained nothing at the first answer: as many went wrong as went right"
    if any(value != 0 for stage in STAGES for value in gain[stage].values()):
        return "Fine-tuning changed no first answer between right and wrong, only recall further down"
    return "Fine-tuning changed nothing: the same queries are right and wrong as before"


def _describe_gain(gain: float | None) -> str:
    if gain is None:
        return "left no figure"
    if gain == 0:
        return "held level"
    return f"{'gained' if gain > 0 else 'lost'} {_format_points(gain)} points"


def _format_points(gain: float) -> str:
    """Format percentage points without their sign; one query of thousands never reads 0.0."""
    return f"{abs(gain):.1f}" if abs(gain) >= 0.1 else f"{abs(gain):.2f}"


def _example_groups(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group examples by stage, re-ranked first, and prepare the first of each group for the page."""
    groups = []
    for stage in STAGES[::-1]:
        of_stage = [example for example in examples if example["stage"] == stage]
        if of_stage:
            shown = [_example(example) for example in of_stage[:EXAMPLES]]
            groups.append({"stage": stage, "total": len(of_stage), "shown": shown})
    return groups


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    answers = []
    for when in ("before", "after"):
        answer = example[when]
        shown = {
            "picture": _picture(answer["uri"], f"first answer {when}"),
            "right": answer["rank_of_first_right"] == 1,
            "description": _describe_answer(answer),
        }
        answers.append((when, shown))
    return {"query": _picture(example["query"], "query"), "answers": answers}


def _describe_answer(answer: Mapping[str, Any]) -> str:
    if answer["uri"] is None:
        return f"no answer: {answer['reason']}"
    distance_m, rank = answer["distance_m"], answer["rank_of_first_right"]
    parts = ["place unknown" if distance_m is None else f"{distance_m:,.1f} m away"]
    if answer["mutual_matches"] is not None:
        parts.append(f"{answer['mutual_matches']:,} mutual matches")
    if answer["similarity"] is not None:
        parts.append(f"similarity {answer['similarity']:.3f}")
    if rank is None:
        parts.append("nothing right among the answers")
    elif rank > 1:
        parts.append(f"first right at rank {rank}")
    return ", ".join(parts)


def _picture(uri: str | None, role: str) -> dict[str, Any]:
    """Return a photo for the page, or why it cannot be shown."""
    if uri is None:
        return {"role": role, "name": None, "data_uri": None}
    shown = {"role": role, "name": Path(uri).name}
    try:
        thumbnail = make_thumbnail(read_bytes(uri), max_side_px=_THUMBNAIL_PX)
    except ImageRejected as error:
        return shown | {"data_uri": None, "error": str(error)}
    return shown | {"data_uri": thumbnail.data_uri}


def _format_value(value: Any) -> str:
    """Format a setting or a fact, also a nested one, as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_format_value(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_format_value, value)) or "none"
    return "none" if value is None else str(value)

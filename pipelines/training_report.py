"""The report of a training run: recall before and after, curves, and what changed. Needs no network."""

from __future__ import annotations

import base64
import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.image import ImageRejected, encode_thumbnail
from models.photo_file import read_bytes
from pipelines.recall import RECALL_AT, Evaluation
from pipelines.report import STYLE
from pipelines.training_change import STAGES, describe_change

__all__ = ["write_training_report"]

Row = Mapping[str, float | str]

EXAMPLES = 12
_POINTS = 400
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 240, 56, 34
_STYLE = """
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem } .three img, .none {
  width: 100%; aspect-ratio: 4 / 3; object-fit: cover; border-radius: 4px; display: block }
.none { background: var(--rule); display: grid; place-items: center; padding: .5rem; font-size: .85rem }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif } td.text { text-align: left }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem }
"""
_NAMES = {"global": "global descriptor", "reranked": "after re-ranking"}
_CURVES = (
    (
        "Loss",
        "loss",
        (("triplet_loss", "triplet", "--rerank", ""), ("local_loss", "local features", "--good", "6 4")),
    ),
    (
        "Recall on the validation split",
        "recall, %",
        (
            ("recall_global_1", "R@1 global", "--global", ""),
            ("recall_reranked_1", "R@1 re-ranked", "--rerank", ""),
            ("recall_reranked_5", "R@5 re-ranked", "--rerank", "6 4"),
        ),
    ),
)


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
        folder: Where to.
        before: The model that training began with, on the validation split.
        after: The trained model on the same queries.
        rows: The log of training, see `pipelines.training_log.COLUMNS`.
        settings: What training was told.
        facts: What else is worth knowing.

    Returns:
        What report.json holds.

    Raises:
        ValueError: both evaluations are not of the same queries.
    """
    curve = [{name: _number(value) for name, value in row.items() if value != ""} for row in rows]
    described = describe_change(before, after) | {"curve": curve, "settings": settings, "facts": facts}
    report: dict[str, Any] = _finite(described)
    _write(folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    _write(folder / "report.html", _page(report))
    return report


def _write(path: Path, content: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def _number(value: float | str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _finite(value: Any) -> Any:
    """Return what JSON can hold: a number that is none becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _text(value: object) -> str:
    return html.escape(str(value))


def _page(report: dict[str, Any]) -> str:
    curves = "".join(_curve(report["curve"], *curve) for curve in _CURVES)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fine-tuning on {_text(report["settings"].get("dataset", report["dataset"]))} – placeray</title>
<style>{STYLE}{_STYLE}</style></head><body>
<h1>{_headline(report)}</h1>
<p class="soft">{_text(report["dataset"])}: {report["queries"]:,} queries against {report["database"]:,}
images; training did not see them, but they chose the best epoch.
Right means {_text(report["protocol"])}.</p>
<h2>Recall before and after</h2>{_recall_table(report)}{_chances(report)}
<h2>Curves</h2><div class="curves">{curves}</div>
{_examples("From wrong to right", report["gained"])}
{_examples("From right to wrong", report["lost"])}
<h2>Settings</h2>{_pairs(report["settings"])}
<h2>Facts</h2>{_pairs(report["facts"])}
</body></html>
"""


def _headline(report: dict[str, Any]) -> str:
    gain = report["recall"]["gain"]
    first, ranked = gain["global"]["1"], gain["reranked"]["1"]

    def words(points: float) -> str:
        if not points:
            return "kept"
        return f"{'gained' if points > 0 else 'lost'} {abs(points):.1f} points"

    if not first and not ranked:
        return "Training changed nothing at the first answer"
    return f"R@1 {words(first)} by global descriptor and {words(ranked)} after re-ranking"


def _recall_table(report: dict[str, Any]) -> str:
    head = "".join(f'<th scope="col">R@{k}</th>' for k in RECALL_AT)
    rows = ""
    for stage in STAGES:
        for when in ("before", "after", "gain"):
            values = report["recall"][when][stage]
            cells = "".join(
                f"<td>{values[str(k)]:{'+' if when == 'gain' else ''}.1f}</td>" for k in RECALL_AT
            )
            rows += f'<tr><th scope="row">{_NAMES[stage]}, {when}</th>{cells}</tr>'
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">percent of queries</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _chances(report: dict[str, Any]) -> str:
    said = ""
    for stage in STAGES:
        changed = report["changed"][stage]
        said += (
            f"<p>{_NAMES[stage].capitalize()}: {changed['gained']} first answers went from wrong to right, "
            f"{changed['lost']} from right to wrong; a split at least so uneven comes by chance with "
            f"probability {changed['p_value']:.2g} (McNemar's exact test).</p>"
        )
    return said


def _curve(
    rows: list[dict[str, Any]], title: str, unit: str, series: Sequence[tuple[str, str, str, str]]
) -> str:
    """Draw columns of the log against the step."""
    points = {
        name: [(row["step"], row[name]) for row in rows if isinstance(row.get(name), float)]
        for name, *_ in series
    }
    if not any(points.values()):
        return f"<figure><figcaption>{title}: nothing was logged.</figcaption></figure>"
    steps = max(1.0, max(step for some in points.values() for step, _ in some))
    highest = max(value for some in points.values() for _, value in some)
    top = 100.0 if unit.endswith("%") else highest * 1.05 or 1.0
    right, drawn, legend = _WIDTH - 12, "", ""

    def at(step: float, value: float) -> str:
        x = _LEFT + (right - _LEFT) * step / steps
        return f"{x:.1f},{(_HEIGHT - _BOTTOM) - (_HEIGHT - _BOTTOM - 12) * value / top:.1f}"

    for share in (0.0, 0.5, 1.0):
        x, y = at(0, top * share).split(",")
        drawn += f'<line x1="{x}" x2="{right}" y1="{y}" y2="{y}" stroke="var(--rule)"/>'
        drawn += f'<text x="{_LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{top * share:.3g}</text>'
    for name, label, colour, dashes in series:
        some = points[name][:: max(1, len(points[name]) // _POINTS)]
        line = " ".join(at(step, value) for step, value in some)
        drawn += (
            f'<polyline points="{line}" fill="none" stroke="var({colour})" stroke-width="2" '
            f'stroke-dasharray="{dashes}"/>'
        )
        if len(some) == 1:
            x, y = line.split(",")
            drawn += f'<circle cx="{x}" cy="{y}" r="4" fill="var({colour})"/>'
        sample = f'<line x1="0" x2="24" y1="5" y2="5" stroke="var({colour})" stroke-width="2" '
        sample += f'stroke-dasharray="{dashes}"/>'
        legend += (
            '<span><svg aria-hidden="true" style="width:24px;height:10px;display:inline-block">'
            f"{sample}</svg> {label}</span>"
        )
    drawn += f'<text x="{right}" y="{_HEIGHT - 6}" text-anchor="end">step (to {steps:,.0f})</text>'
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}, {unit}, by step">'
        f'{drawn}</svg><figcaption class="legend">{title} ({unit}) {legend}</figcaption></figure>'
    )


def _examples(title: str, examples: list[dict[str, Any]]) -> str:
    if not examples:
        return f"<h2>{title}</h2><p>No query.</p>"
    shown = examples[:EXAMPLES]
    note = f"<p>{len(shown)} of {len(examples)} are shown.</p>" if len(shown) < len(examples) else ""
    return f'<h2>{title}</h2>{note}<div class="grid">{"".join(_example(one) for one in shown)}</div>'


def _example(example: dict[str, Any]) -> str:
    query = Path(example["query"]).name
    cells = f"<div>{_picture(example['query'], 'query')}<small>query</small></div>"
    for when in ("before", "after"):
        answer = example[when]
        right = answer.get("rank_of_first_right") == 1
        verdict = "right" if right else "wrong"
        cells += f"<div>{_picture(answer['uri'], f'first answer {when}')}<small>{when}: "
        cells += f'<span class="{verdict}">{"✓" if right else "✗"} {verdict}</span>'
        if answer["uri"] is None:
            cells += f", {_text(answer['reason'])}</small></div>"
            continue
        if answer["distance_m"] is not None:
            cells += f", {answer['distance_m']:,.1f} m away"
        cells += f", {answer['mutual_matches']} matches</small></div>"
    return (
        f'<figure><div class="three">{cells}</div><figcaption class="soft">'
        f"{_NAMES[example['stage']]}: {_text(query)}</figcaption></figure>"
    )


def _picture(uri: str | None, what: str) -> str:
    if uri is None:
        return '<div class="none">no answer</div>'
    try:
        encoded, _, _ = encode_thumbnail(read_bytes(uri), max_side_px=280)
    except ImageRejected as error:
        return f'<div class="none">{_text(error)}</div>'
    data = base64.b64encode(encoded).decode()
    return f'<img alt="{what}: {_text(Path(uri).name)}" src="data:image/jpeg;base64,{data}">'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = ""
    for name, value in values.items():
        rows += f'<tr><th scope="row">{_text(name.replace("_", " "))}</th>'
        rows += f'<td class="text">{_text(_shown(value))}</td></tr>'
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)

"""One HTML file that shows an evaluation: recall, map, and what was matched with what. Needs no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.images.decoder import ImageRejected, encode_thumbnail
from models.images.photo_file import read_bytes
from pipelines.evaluation.recall import RECALL_AT, Evaluation, QueryOutcome
from serving.engine import QueryEngine
from storage.position import POSITION_COLUMNS, Position, Positions

__all__ = ["choose_examples", "write_report"]

MAX_LINES = 40
THUMBNAIL_PX = 420
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --ground: #fbfaf7; --card: #fff;
  --rule: #dcd8cf; --good: #167a4a; --bad: #b3321f; --global: #9aa7b4; --rerank: #2463c4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --soft: #a3abb3; --ground: #15181b;
  --card: #1d2125; --rule: #343a40; --good: #4cc38a; --bad: #ff7b66; --global: #67737f; --rerank: #6ea4ff; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem }
p.soft, .soft { color: var(--soft) } p { max-width: 46rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .4rem .9rem; border-bottom: 1px solid var(--rule) }
th:first-child, td:first-child { text-align: left; padding-left: 0 } thead th { color: var(--soft) }
.wide { overflow-x: auto } .bar { height: .55rem; border-radius: 2px; display: inline-block }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: .75rem; } figure svg { width: 100%; height: auto; display: block; border-radius: 4px }
.map svg { max-height: 28rem } figcaption { margin-top: .6rem; font-size: .92rem; overflow-wrap: anywhere }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem }
.right { color: var(--good); font-weight: 600 } .wrong { color: var(--bad); font-weight: 600 }
.legend span { margin-right: 1.2rem } .dot { display: inline-block; width: .7rem; height: .7rem;
  border-radius: 50%; margin-right: .35rem }
"""


@dataclass(frozen=True)
class _Picture:
    data_uri: str
    width: int
    height: int


def choose_examples(evaluation: Evaluation, *, count: int = 12) -> list[QueryOutcome]:
    """Pick queries worth looking at: those that re-ranking put right, then right ones, then wrong ones."""
    answered = [outcome for outcome in evaluation.outcomes if outcome.matches]
    rescued = [o for o in answered if o.first_hit_reranked == 1 and o.first_hit_global != 1]
    wrong = [o for o in answered if o.first_hit_reranked != 1]
    kept = [o for o in answered if o.first_hit_reranked == 1 and o.first_hit_global == 1]
    few_wrong = wrong[: max(1, count // 4)]
    few_rescued = rescued[: max(1, (count - len(few_wrong)) * 2 // 3)]
    return (few_rescued + kept[: max(0, count - len(few_wrong) - len(few_rescued))] + few_wrong)[:count]


def write_report(
    path: str | Path, evaluation: Evaluation, engine: QueryEngine, *, notes: Sequence[str] = ()
) -> None:
    """Write the report page, whole or not at all.

    Args:
        path: The HTML file.
        evaluation: What to show.
        engine: The engine that was evaluated; it finds the matched features of the examples.
        notes: Extra lines under the heading, plain text.
    """
    figures = "".join(_figure(outcome, engine) for outcome in choose_examples(evaluation))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(evaluation.dataset)} – placeray</title><style>{STYLE}</style></head><body>
<h1>{_headline(evaluation)}</h1>
<p class="soft">{_text(evaluation.dataset)}: {evaluation.queries:,} queries against
{evaluation.database:,} images, model {_text(evaluation.model)}, store version {evaluation.store_version}.
Right means {_text(evaluation.protocol)}.</p>
{"".join(f'<p class="soft">{_text(note)}</p>' for note in [*_warnings(evaluation), *notes])}
<h2>Recall</h2>{_recall_table(evaluation)}
<h2>Where the time went</h2>{_seconds_table(evaluation)}
<h2>Map</h2>{_map(evaluation, engine)}
<h2>Queries and first answers</h2>
<p class="soft">Left the query, right the first answer after re-ranking; lines join mutual nearest neighbours
of their local features.</p>
<div class="grid">{figures}</div>
</body></html>
"""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)


def _text(value: object) -> str:
    return html.escape(str(value))


def _headline(evaluation: Evaluation) -> str:
    first = evaluation.recall["reranked"]["1"]
    return f"{first:.1f} % of the photos are placed right at the first answer"


def _warnings(evaluation: Evaluation) -> list[str]:
    counts = [
        (
            evaluation.queries_without_positive,
            "queries have nothing right in the database and count as misses",
        ),
        (evaluation.queries_rejected, "query photos could not be used and count as misses"),
        (evaluation.queries_without_coordinates, "queries have no coordinates and are not scored"),
        (
            evaluation.database_without_coordinates,
            "stored images have no coordinates and never count as right",
        ),
        (evaluation.degraded, "queries were answered while something stored could not be read"),
    ]
    return [f"{count} {what}." for count, what in counts if count]


def _recall_table(evaluation: Evaluation) -> str:
    head = "".join(f"<th>R@{k}</th>" for k in RECALL_AT)
    rows = ""
    for key, name, colour in (
        ("global", "global descriptor", "--global"),
        ("reranked", "after re-ranking", "--rerank"),
    ):
        values = evaluation.recall[key]
        cells = "".join(f"<td>{values[str(k)]:.1f}</td>" for k in RECALL_AT)
        bar = f'<span class="bar" style="width:{values["1"] * 0.08:.2f}rem;background:var({colour})"></span>'
        rows += f"<tr><td>{name}</td>{cells}<td style='text-align:left;min-width:9rem'>{bar}</td></tr>"
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}<th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _seconds_table(evaluation: Evaluation) -> str:
    stages = [stage for stage in evaluation.seconds if stage not in {"wall", "total"}]
    head = "".join(f"<th>{_text(stage)}</th>" for stage in stages)
    answered = max(1, evaluation.queries - evaluation.queries_rejected)
    cells = "".join(f"<td>{evaluation.seconds[stage] / answered * 1e3:.1f}</td>" for stage in stages)
    total = evaluation.seconds["total"] / answered * 1e3
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}<th>total</th></tr></thead>'
        f"<tbody><tr><td>ms a query</td>{cells}<td>{total:.1f}</td></tr></tbody></table></div>"
    )


def _map(evaluation: Evaluation, engine: QueryEngine) -> str:
    stored = engine.store.known().select(POSITION_COLUMNS).to_pylist()
    positions = [outcome.position for outcome in evaluation.outcomes] + [Position.of(row) for row in stored]
    points = Positions.of(positions).on_one_plane()
    queries, database = np.split(points, [len(evaluation.outcomes)])
    database = database[np.isfinite(database).all(axis=1)]
    if not len(database):
        return '<p class="soft">No stored image has coordinates.</p>'
    # Thousands of dots make a slow page and no clearer map.
    database = np.unique(database[:: max(1, len(database) // 4000)], axis=0)
    low = np.minimum(database.min(axis=0), queries.min(axis=0))
    span = np.maximum(np.maximum(database.max(axis=0), queries.max(axis=0)) - low, 1.0)
    scale = 1000.0 / max(span[0], span[1] * 2.0)
    width, height = span * scale + 40

    def at(point: NDArray[np.float64]) -> str:
        x, y = (point - low) * scale + 20
        return f'cx="{x:.1f}" cy="{height - y:.1f}"'

    dots = "".join(f'<circle {at(point)} r="3" fill="var(--global)"/>' for point in database)
    for outcome, point in zip(evaluation.outcomes, queries, strict=True):
        colour = "--good" if outcome.first_hit_reranked == 1 else "--bad"
        title = f"<title>{_text(Path(outcome.uri).name)}</title>"
        dots += f'<circle {at(point)} r="6" fill="var({colour})" fill-opacity=".75">{title}</circle>'
    metres = f"{span[0]:.0f} m by {span[1]:.0f} m, north up"
    return (
        f'<figure class="map"><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="Map, {metres}">{dots}</svg>'
        '<figcaption class="legend"><span><i class="dot" style="background:var(--global)"></i>database</span>'
        '<span><i class="dot" style="background:var(--good)"></i>query placed right</span>'
        f'<span><i class="dot" style="background:var(--bad)"></i>query placed wrong</span> {metres}'
        "</figcaption></figure>"
    )


def _figure(outcome: QueryOutcome, engine: QueryEngine) -> str:
    match = outcome.matches[0]
    photo = read_bytes(outcome.uri)
    left, right = _picture(photo), _stored_picture(match.record.uri)
    query_points, stored_points, similarity = engine.matched_points(photo, match.record)
    best = np.argsort(-similarity)[:MAX_LINES]
    gap, height = 12, max(left.height, right.height)
    shift = left.width + gap
    lines = "".join(
        f'<line x1="{a[0] * left.width:.1f}" y1="{a[1] * left.height:.1f}" '
        f'x2="{shift + b[0] * right.width:.1f}" y2="{b[1] * right.height:.1f}" '
        f'stroke="hsl({40 + 110 * max(0.0, (s - 0.5) * 2):.0f} 95% 55%)"/>'
        for a, b, s in zip(query_points[best], stored_points[best], similarity[best].tolist(), strict=True)
    )
    right_answer = outcome.first_hit_reranked == 1
    verdict = "right" if right_answer else "wrong"
    distance = _distance_m(outcome)
    before = outcome.first_hit_global
    place = f"stood at rank {before}" if before else "was not among the candidates"
    return (
        f'<figure><svg viewBox="0 0 {shift + right.width} {height}" role="img" '
        f'aria-label="Query and first answer, {verdict}">'
        f'<image href="{left.data_uri}" width="{left.width}" height="{left.height}"/>'
        f'<image href="{right.data_uri}" x="{shift}" width="{right.width}" height="{right.height}"/>'
        f'<g stroke-width="1.4" stroke-opacity=".8">{lines}</g></svg>'
        f'<figcaption><span class="{verdict}">{verdict}</span>{distance}: '
        f"{match.mutual_matches} mutual matches, similarity {match.similarity:.3f}; "
        f"before re-ranking the first right answer {place}.<br>"
        f'<span class="soft">'
        f"{_text(Path(outcome.uri).name)} → {_text(match.record.image_id)}</span></figcaption></figure>"
    )


def _distance_m(outcome: QueryOutcome) -> str:
    distance_m = outcome.position.distance_m(outcome.matches[0].record.position)
    return "" if distance_m is None else f", {distance_m:,.1f} m away"


def _picture(data: bytes) -> _Picture:
    encoded, width, height = encode_thumbnail(data, max_side_px=THUMBNAIL_PX)
    return _Picture(f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}", width, height)


def _stored_picture(uri: str) -> _Picture:
    """Return the picture of a stored image, or an empty frame where the photo is gone."""
    try:
        return _picture(read_bytes(uri))
    except ImageRejected:
        return _Picture("data:,", THUMBNAIL_PX, THUMBNAIL_PX * 3 // 4)

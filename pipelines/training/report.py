"""The report of a training run: recall before and after, curves, and what changed. Needs no network."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.images.decoder import ImageRejected, encode_thumbnail
from models.images.photo_file import read_bytes
from pipelines.evaluation.recall import RECALL_AT, Evaluation
from pipelines.evaluation.report import STYLE
from pipelines.training.charts import LOSSES, RECALLS, draw_chart
from pipelines.training.comparison import STAGES, describe_change
from storage.durable import replace_file

__all__ = ["write_training_report"]

Row = Mapping[str, float | str]

EXAMPLES = 8  # of each kind and stage
# Nothing runs and nothing is fetched, even if a name should slip through the escaping.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { --warm: #b45309 } @media (prefers-color-scheme: dark) { :root { --warm: #f0a35e } }
.three { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .5rem }
.three img, .none { width: 100%; aspect-ratio: 4 / 3; object-fit: cover; border-radius: 4px; display: block }
.none { border: 1px dashed var(--soft); overflow: auto; padding: .5rem; font-size: .85rem;
  overflow-wrap: anywhere } h3 { font-size: 1rem; margin: 1.25rem 0 .5rem }
figure svg text { fill: var(--soft); font: 13px system-ui, sans-serif } tbody th { font-weight: 400 }
th.text, td.text { text-align: left } td.text { overflow-wrap: anywhere } .legend span { white-space: nowrap }
.legend svg { width: 28px; height: 10px; display: inline-block }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem }
"""
_NAMES = {"global": "global descriptor", "reranked": "after re-ranking"}
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
        folder: Where to; made if it is not there.
        before: The model that training began with, on the validation split.
        after: The trained model on the same queries.
        rows: The log of training, see `pipelines.training.log.COLUMNS`; a value may be absent or empty.
        settings: What training was told.
        facts: What else is worth knowing.

    Returns:
        What report.json holds.

    Raises:
        ValueError: both evaluations are not of the same queries.
        OutOfSpace: the disk is full; a report of before stands.
    """
    described = describe_change(before, _in_order_of(before, after))
    for example in (*described["gained"], *described["lost"]):
        example |= {when: _NO_ANSWER | example[when] for when in ("before", "after")}
    curve = [{name: _number(one) for name, one in row.items() if one not in ("", None)} for row in rows]
    report: dict[str, Any] = _plain(described | {"curve": curve, "settings": settings, "facts": facts})
    # Both are made before either is written. A name that is no UTF-8 must not stop the page.
    page = _page(report).encode("utf-8", "replace")
    content = json.dumps(report, indent=2, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "report.json", content.encode())
    replace_file(folder / "report.html", page)
    return report


def _in_order_of(before: Evaluation, after: Evaluation) -> Evaluation:
    """Return `after` with its queries in the order of `before` where they are the same."""
    uris, found = [one.uri for one in before.outcomes], {one.uri: one for one in after.outcomes}
    if sorted(uris) != sorted(one.uri for one in after.outcomes) or len(found) < len(uris):
        return after
    return dataclasses.replace(after, outcomes=tuple(found[uri] for uri in uris))


def _number(value: float | str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _plain(value: Any) -> Any:
    """Return what JSON can hold: a number that is none becomes null, a stranger its text."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def _text(value: object) -> str:
    return html.escape(str(value))


def _page(report: dict[str, Any]) -> str:
    rows = report["curve"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fine-tuning on {_text(report["dataset"])} – placeray</title>
<style>{STYLE}{_STYLE}</style></head><body><main>
<h1>{_headline(report)}</h1>
<p class="soft">{_text(report["dataset"])}: {report["queries"]:,} queries against {report["database"]:,}
images, {_text(report["model_before"])} before and {_text(report["model_after"])} after training.
Right means {_text(report["protocol"])}.</p>
<h2>Recall before and after</h2>{_recall_table(report)}
{"".join(_chance(stage, **report["changed"][stage]) for stage in STAGES)}
<p class="soft">Where these queries also chose the best epoch, gain and probability flatter the model:
evaluate it on a split that training never asked.</p>
<h2>Curves</h2><div class="curves">{draw_chart(rows, "Loss", "loss (no unit)", None, LOSSES)}
{draw_chart(rows, "Recall on the validation split", "recall (% of queries)", 100.0, RECALLS)}</div>
{_examples("From wrong to right", report["gained"])}
{_examples("From right to wrong", report["lost"])}
<h2>Settings</h2>{_pairs("setting", report["settings"])}
<h2>Facts</h2>{_pairs("fact", report["facts"])}
</main></body></html>
"""


def _headline(report: dict[str, Any]) -> str:
    gain, changed = report["recall"]["gain"], report["changed"]
    if any(gain[stage]["1"] != 0 for stage in STAGES):
        words = [
            f"{_points_of(gain[stage]['1'])} {name}"
            for stage, name in (("reranked", "after re-ranking"), ("global", "by global descriptor"))
        ]
        return f"Fine-tuning {words[0]} and {words[1]} at the first answer (R@1)"
    moved = sum(changed[stage]["gained"] + changed[stage]["lost"] for stage in STAGES)
    if moved:
        return "Fine-tuning gained nothing at the first answer: as many went wrong as went right"
    if any(value != 0 for stage in STAGES for value in gain[stage].values()):
        return "Fine-tuning changed no first answer between right and wrong, only recall further down"
    return "Fine-tuning changed nothing: the same queries are right and wrong as before"


def _points_of(gain: float | None) -> str:
    if not gain:
        return "held level" if gain == 0 else "left no figure"
    return f"{'gained' if gain > 0 else 'lost'} {_size(gain)} points"


def _size(gain: float) -> str:
    # One query of thousands is less than a tenth of a point, and still no 0.0.
    return f"{abs(gain):.1f}" if abs(gain) >= 0.1 else f"{abs(gain):.2f}"


def _recall_table(report: dict[str, Any]) -> str:
    head = "".join(f'<th scope="col">R@{k}</th>' for k in RECALL_AT)
    rows = ""
    for stage in STAGES:
        for when in ("before", "after", "gain"):
            cells = "".join(_cell(report["recall"][when][stage][str(k)], when) for k in RECALL_AT)
            rows += f'<tr><th scope="row">{_NAMES[stage]}, {when}</th>{cells}</tr>'
    return (
        f"{_wide('Recall')}<table><thead><tr><th scope='col'>percent of queries</th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _wide(label: str) -> str:
    """Open a part that scrolls on narrow screens, with the keyboard too."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{label}">'


def _cell(value: float | None, when: str) -> str:
    if value is None:
        return "<td>no figure</td>"
    if when != "gain" or value == 0:
        return f"<td>{value:.1f}</td>"
    return f'<td class="{"right" if value > 0 else "wrong"}">{"+" if value > 0 else "−"}{_size(value)}</td>'


def _chance(stage: str, *, gained: int, lost: int, p_value: float) -> str:
    name = _NAMES[stage].capitalize()
    if not gained + lost:
        return f"<p>{name}: no first answer went from wrong to right or back.</p>"
    size = f"{p_value:.2g}" if p_value >= 1e-4 else "less than 0.0001"
    verdict = "more than chance" if p_value < 0.05 else "this may be mere chance"
    return (
        f"<p>{name}: {gained} first answers went from wrong to right, {lost} from right to wrong. Were both "
        f"ways equally likely, a split at least so uneven would have a probability of {size}: {verdict}, "
        "taken at 0.05 (McNemar's exact test).</p>"
    )


def _examples(title: str, examples: Sequence[Mapping[str, Any]]) -> str:
    content = ""
    for stage in STAGES[::-1]:
        here = [one for one in examples if one["stage"] == stage]
        shown = here[:EXAMPLES]
        if shown:
            figures = "".join(_example(one) for one in shown)
            count = f"{len(shown)} of {len(here)} shown"
            content += f'<h3>{_NAMES[stage].capitalize()} ({count})</h3><div class="grid">{figures}</div>'
    return f"<h2>{title}</h2>{content or '<p>No query.</p>'}"


def _example(example: Mapping[str, Any]) -> str:
    name = f"<bdi>{_text(Path(example['query']).name)}</bdi>"
    cells = f"<div>{_picture(example['query'], 'query')}<small>query</small></div>"
    for when in ("before", "after"):
        answer = example[when]
        right = answer["rank_of_first_right"] == 1
        verdict = '<span class="right">✓ right</span>' if right else '<span class="wrong">✗ wrong</span>'
        picture = _picture(answer["uri"], f"first answer {when}")
        cells += f"<div>{picture}<small>{when}: {verdict}, {_told(answer)}</small></div>"
    return f'<figure><div class="three">{cells}</div><figcaption class="soft">{name}</figcaption></figure>'


def _told(answer: Mapping[str, Any]) -> str:
    if answer["uri"] is None:
        return f"no answer: {_text(answer['reason'])}"
    distance, rank = answer["distance_m"], answer["rank_of_first_right"]
    told = ["place unknown" if distance is None else f"{distance:,.1f} m away"]
    if answer["mutual_matches"] is not None:
        told.append(f"{answer['mutual_matches']:,} mutual matches")
    if answer["similarity"] is not None:
        told.append(f"similarity {answer['similarity']:.3f}")
    if rank is None:
        told.append("nothing right among the answers")
    elif rank > 1:
        told.append(f"first right at rank {rank}")
    return ", ".join(told)


def _picture(uri: str | None, what: str) -> str:
    if uri is None:
        return f'<div class="none">{what}: none</div>'
    name = _text(Path(uri).name)
    try:
        encoded, _, _ = encode_thumbnail(read_bytes(uri), max_side_px=280)
    except ImageRejected as error:
        return f'<div class="none">{what}: <bdi>{name}</bdi> cannot be shown: {_text(error)}</div>'
    data = base64.b64encode(encoded).decode()
    return f'<img alt="{what}: {name}" src="data:image/jpeg;base64,{data}">'


def _pairs(what: str, values: Mapping[str, Any]) -> str:
    if not values:
        return "<p>None were given.</p>"
    rows = "".join(
        f'<tr><th scope="row">{_text(name.replace("_", " "))}</th>'
        f'<td class="text">{_text(_shown(value))}</td></tr>'
        for name, value in values.items()
    )
    head = f'<thead><tr><th scope="col">{what}</th><th scope="col" class="text">value</th></tr></thead>'
    return f"{_wide(f'Table of every {what}')}<table>{head}<tbody>{rows}</tbody></table></div>"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return "none" if value is None else str(value)

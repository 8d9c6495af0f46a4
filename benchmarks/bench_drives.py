"""Drives through drawn cities with exact poses: tracks against single answers, with goals beside figures.

    python -m benchmarks.bench_drives --scratch DIR
    python -m benchmarks.bench_drives --scratch DIR --dataset CORRIDOR

A drive of 150 frames at one per second turns, stops, and leaves the photographed streets once. Three ways are
compared on its frames inside: the first answer to each frame alone, windows of ten frames that are followed
each by itself, and the whole drive with a lag of ten frames; right is a position within 25 m, and a frame
that is lost or unsure counts as wrong. Printed too: how many frames after the way out the first is
called lost, the share of frames outside that are called known, how often the radius of known frames holds
the truth, and milliseconds per frame. `--dataset` takes the queries of a photo set, in the order of their
names, as a drive in place of the drawn ones; each of the two keeps what the other has written. Answers are
kept in the scratch folder: only the first run takes minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept import add_kept_folder
from benchmarks.local_index import index_once
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, former_entries, make_parser, write_results
from models.images import ImageRejected
from pipelines.demo.dataset import draw_city
from pipelines.demo.drive import Drive, draw_drive
from pipelines.sources import list_source, open_dataset
from pipelines.tracks.frames import natural_key
from serving.answer import Match, QueryResult
from serving.engine import QueryEngine
from serving.places.evidence import ELSEWHERE_M, Evidence
from serving.tracks.answers import LOST
from serving.tracks.city_map import CityMap
from serving.tracks.emission import leads_of
from serving.tracks.motion import Motion, at_rate
from serving.tracks.tracker import track
from serving.tracks.whereabouts import RIGHT_M, Located
from storage.position import Position
from storage.store import Store

DATABASE, FRAMES, CANDIDATES = 432, 150, 100
SETS = (
    *("hard:0:night", "hard:1:night", "hard:2:night", "hard:3:night"),
    *("hard:0:day", "hard:1:day", "easy:0:night", "easy:1:night"),
)
WINDOW = 10
GAIN_POINTS, LOSS_POINTS, LOST_FRAMES = 8.0, 0.5, 5


@dataclass(frozen=True)
class Answered:
    """A drive with the answers to its frames.

    Attributes:
        name: Of the set.
        matches: Of each frame.
        places: Position of each frame's place, from the frame alone.
        truth: Where each frame was taken.
        inside: (F,) bool.
        odometry: Motion to each frame, or None where there is none.
        city: Places of the store.
    """

    name: str
    matches: list[tuple[Match, ...]]
    places: list[Position | None]
    truth: list[Position]
    inside: np.ndarray
    odometry: list[Motion] | None
    city: CityMap


def main() -> None:
    parser = make_parser(__doc__, "drives.json")
    add_kept_folder(parser, "--scratch", "drives")
    parser.add_argument("--sets", nargs="*", metavar="hard|easy:SEED:CONDITION")
    parser.add_argument("--dataset", type=Path, help="a photo set as a drive instead, such as corridor")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.sets is None:
        args.sets = [] if args.dataset is not None else list(SETS)
    results = former_entries(args.out, lambda name: not args.sets or not is_drawn(name))
    whole = results
    for answered in _all(args):
        results[answered.name] = measure(answered)
        whole = results | {"machine": describe_machine(), "command": command_line()}
        write_results(args.out, whole, finished=False)
    write_results(args.out, whole)


def is_drawn(name: str) -> bool:
    """Return whether an entry of the results is of a drive through a drawn city."""
    return name.startswith(("hard:", "easy:"))


def _all(args: argparse.Namespace) -> Iterator[Answered]:
    if args.dataset is not None:
        yield photographed(args.scratch, args.dataset)
    for name in args.sets:
        yield drawn(args.scratch, name)


def drawn(scratch: Path, name: str) -> Answered:
    """Draw, index and answer a set, or read what an earlier run kept."""
    kind, seed, condition = name.split(":")
    hard, city = kind == "hard", scratch / f"{kind}{seed}"
    values = {"seed": int(seed), "database_images": DATABASE, "hard": hard}
    draw_city(city, **values, query_images=0, workers=2)  # type: ignore[arg-type]
    drive: Drive = draw_drive(
        scratch / f"drive-{kind}{seed}-{condition}",
        **values,  # type: ignore[arg-type]
        condition=condition,
        frames=FRAMES,
    )
    store = index_once(city / "images/test/database", scratch / f"store-{kind}{seed}")
    frames = [drive.frames_folder / frame.name for frame in drive.frames]
    answers = _answers(store, frames, scratch / f"answers-{kind}{seed}-{condition}.json")
    truth = [Position.of(row) for row in list_source(drive.folder / "truth.csv").to_pylist()]
    odometry = [Motion(frame.distance_m, frame.turn_deg) for frame in drive.frames]
    inside = np.array([frame.inside for frame in drive.frames])
    return _answered(name, answers, truth, inside, odometry, store)


def photographed(scratch: Path, dataset: Path) -> Answered:
    """Index and answer a photo set whose queries were taken along a way."""
    layout = open_dataset(dataset, split="test")
    store = index_once(layout.database, scratch / f"store-{dataset.name}")
    rows = sorted(list_source(layout.queries).to_pylist(), key=lambda row: natural_key(row["uri"]))
    answers = _answers(store, [Path(row["uri"]) for row in rows], scratch / f"answers-{dataset.name}.json")
    truth = [Position.of(row) for row in rows]
    return _answered(dataset.name, answers, truth, np.ones(len(rows), np.bool_), None, store)


def _answers(store: Store, frames: Sequence[Path], kept: Path) -> list[QueryResult]:
    if not kept.exists():
        engine = QueryEngine.open(store.uri)
        answers = list(engine.answer_many(frames, top_k=CANDIDATES, candidates=CANDIDATES))
        assert not any(isinstance(answer, ImageRejected) for answer in answers)
        kept.write_text(json.dumps([answer.to_dict() for answer in answers]))  # type: ignore[union-attr]
    return [QueryResult.from_dict(values) for values in json.loads(kept.read_text())]


def _answered(
    name: str,
    answers: Sequence[QueryResult],
    truth: list[Position],
    inside: np.ndarray,
    odometry: list[Motion] | None,
    store: Store,
) -> Answered:
    places = [
        Position.of(answer.place["position"]) if answer.place is not None else None for answer in answers
    ]
    matches = [answer.matches for answer in answers]
    return Answered(name, matches, places, truth, inside, odometry, CityMap.of(store.snapshot))


def measure(drive: Answered) -> dict[str, Any]:
    """Return the figures of one drive, and print them with the goals."""
    inside = drive.inside
    first = _errors_m([matches[0].record.position for matches in drive.matches], drive.truth)
    alone = 100 * float((first[inside] <= RIGHT_M).mean())
    place = 100 * float((_errors_m(drive.places, drive.truth)[inside] <= RIGHT_M).mean())
    best = max(alone, place)
    figures: dict[str, Any] = {"frames": len(inside), "inside": int(inside.sum())}
    figures |= {"first_answer": round(alone, 1), "place": round(place, 1)} | _densities(drive)
    print(f"\n{drive.name}: {len(inside)} frames, {inside.sum()} inside; right within 25 m, in percent")
    print(f"  {'first answer':<34}{alone:>7.1f}    place of the frame alone {place:.1f}")
    one = 100 / max(1, int(inside.sum()))
    low = max(LOSS_POINTS, one)
    is_hard = drive.name.startswith("hard") and drive.name.endswith("night")
    goal = f"goal {best + GAIN_POINTS if is_hard else best - low:.1f}"
    motions = {"rate alone": at_rate(len(inside))}
    if drive.odometry is not None:
        motions["odometry"] = drive.odometry
    for known, moved in motions.items():
        for way, window, lag in (("windows of 10", WINDOW, WINDOW), ("lag 10", None, 10), ("lag 0", None, 0)):
            found = _followed(drive, moved, window=window, lag=lag)
            values = _figures(drive, found.located) | {"ms_per_frame": round(found.ms_per_frame, 2)}
            figures[f"{known}, {way}"] = values
            title = f"{known}, {way}"
            after = "-" if values["lost_after"] is None else f"{values['lost_after']}"
            print(
                f"  {title:<34}{values['right']:>7.1f}    {goal}; known and wrong "
                f"{values['known_wrong']:.1f}; radius holds {values['radius_coverage']:.0f}, median "
                f"{values['radius_median_m']:.1f} m; outside called known {values['outside_known']:.0f}; "
                f"lost after {after} frames (goal {LOST_FRAMES}); {values['ms_per_frame']:.1f} ms per frame",
                flush=True,
            )
    return figures


@dataclass(frozen=True)
class _Followed:
    located: list[Located]
    ms_per_frame: float


def _followed(drive: Answered, motions: list[Motion], *, window: int | None, lag: int) -> _Followed:
    count = len(drive.matches)
    size = window or count
    started = time.perf_counter()
    located: list[Located] = []
    for start in range(0, count, size):
        part = slice(start, start + size)
        located += track(drive.matches[part], drive.city, motions[part], lag=lag)
    return _Followed(located, 1e3 * (time.perf_counter() - started) / count)


def _figures(drive: Answered, located: Sequence[Located]) -> dict[str, Any]:
    inside = drive.inside
    errors = _errors_m([each.position for each in located], drive.truth)
    known = np.array([each.known for each in located])
    radii = np.array([each.radius_m if each.radius_m is not None else np.nan for each in located])
    right = known & (errors <= RIGHT_M)
    judged = inside & known
    out = np.flatnonzero(inside[:-1] & ~inside[1:])
    after = None
    if len(out):
        lost = np.flatnonzero([each.lost >= LOST for each in located[out[0] + 1 :]])
        after = int(lost[0]) if len(lost) else None
    return {
        "right": round(100 * float(right[inside].mean()), 1),
        "known": round(100 * float(known[inside].mean()), 1),
        "known_wrong": round(100 * float((errors[judged] > RIGHT_M).mean()), 1) if judged.any() else 0.0,
        "median_m": round(float(np.median(errors[judged])), 2) if judged.any() else None,
        "radius_coverage": round(100 * float((errors[judged] <= radii[judged]).mean()), 1),
        "radius_median_m": round(float(np.median(radii[judged])), 1),
        "outside_known": round(100 * float(known[~inside].mean()), 1) if (~inside).any() else 0.0,
        "lost_after": after,
    }


def _densities(drive: Answered) -> dict[str, Any]:
    """Return how leads are spread at the true place and elsewhere, which the likelihoods were read from."""
    here: list[float] = []
    elsewhere: list[float] = []
    missed = 0
    for matches, truth, inside in zip(drive.matches, drive.truth, drive.inside, strict=True):
        evidence = Evidence.of(matches)
        if evidence is None:
            continue
        leads = leads_of(evidence)
        away = _errors_m([match.record.position for match in evidence.matches], [truth] * len(evidence))
        near = leads[(away <= 8.0) & (leads > 0)]
        elsewhere += leads[(away > 2 * ELSEWHERE_M) & (leads > 0)].tolist()
        if inside and len(near):
            here.append(float(near.max()))
        elif inside:
            missed += 1
    edges = [0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 5.0]
    counts = [np.histogram(values, edges)[0] for values in (here, elsewhere)]
    ratio = np.log(((counts[0] + 0.5) / max(1, len(here))) / ((counts[1] + 0.5) / max(1, len(elsewhere))))
    return {
        "leads": {
            "missed": round(missed / max(1, int(drive.inside.sum())), 3),
            "edges": edges,
            "here": counts[0].tolist(),
            "elsewhere": counts[1].tolist(),
            "log_ratio": np.round(ratio, 2).tolist(),
        }
    }


def _errors_m(positions: Sequence[Position | None], truth: Sequence[Position]) -> np.ndarray:
    return np.array(
        [
            np.inf if position is None or (metres := position.distance_m(at)) is None else metres
            for position, at in zip(positions, truth, strict=True)
        ]
    )


if __name__ == "__main__":
    main()

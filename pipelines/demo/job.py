"""The demo: draw a city, index it, locate its queries, measure recall, write a report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from models.images.photo_file import read_bytes
from models.names import DEFAULT_MODEL
from pipelines.defaults import DEMO_DATABASE, DEMO_QUERIES, THRESHOLD_M
from pipelines.demo.dataset import draw_city
from pipelines.demo.drive import draw_drive
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.report import write_report
from pipelines.evaluation.result import QueryOutcome
from pipelines.indexing.job import index
from pipelines.progress import ProgressBar
from pipelines.ray_session import check_ray
from serving.engine import QueryEngine

__all__ = ["run_demo"]


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    database_images: int = DEMO_DATABASE,
    query_images: int = DEMO_QUERIES,
    hard: bool = False,
    drive: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Draw a city, index its database, locate its queries, write the report page.

    A second run with the same values finds the city drawn and indexed and only evaluates it again.

    Args:
        out: Folder for the results, each combination of values in a folder of its own.
        seed: Of the city.
        database_images: Pictures to index.
        query_images: Pictures to locate.
        hard: As of `draw_city`.
        drive: Also draw a drive through the city, in this light and weather, see `draw_drive`.
        quiet: Show no progress.

    Returns:
        Paths (`city`, which is also the `dataset` to calibrate on, `store`, `report`), `index` and
        `evaluation` summaries, and `first_query`: its answer, and in `truth` whether the first place is right
        and how far from the photo's own place it is. With `drive` its `frames`, `odometry` and `truth`.
    """
    check_ray()
    base = Path(out, f"seed{seed}-{database_images}x{query_images}{'-hard' if hard else ''}")
    city, store_folder, page = base / "city", base / "store", base / "report.html"
    with ProgressBar("draw", quiet=quiet):
        draw_city(city, seed=seed, database_images=database_images, query_images=query_images, hard=hard)
    with ProgressBar("index", quiet=quiet) as bar:
        indexed = index(city, str(store_folder), model=DEFAULT_MODEL, progress=bar.update)
    engine = QueryEngine.open(str(store_folder))
    with ProgressBar("evaluate", quiet=quiet) as bar:
        evaluation = measure_recall(city, engine, progress=lambda done, total: bar.update(done, 0, total))
    write_report(page, evaluation, engine)
    driven = (
        {}
        if drive is None
        else {"drive": _drive(base / f"drive-{drive}", drive, seed, database_images, hard)}
    )
    return {
        "city": str(city),
        "store": str(store_folder),
        "dataset": str(city),
        "report": str(page),
        "index": dataclasses.asdict(indexed),
        "evaluation": dict(evaluation),
        "first_query": _first_query(engine, evaluation.outcomes[0], THRESHOLD_M),
        **driven,
    }


def _drive(folder: Path, condition: str, seed: int, database_images: int, hard: bool) -> dict[str, str]:
    """Draw a drive and return where its parts are."""
    drive = draw_drive(folder, seed=seed, database_images=database_images, hard=hard, condition=condition)
    return {
        "frames": str(drive.frames_folder),
        "odometry": str(drive.odometry),
        "truth": str(folder / "truth.csv"),
    }


def _first_query(engine: QueryEngine, outcome: QueryOutcome, threshold_m: float) -> dict[str, Any]:
    """Answer a query as `placeray query` does, and say whether its first place is right."""
    answer = engine.answer(read_bytes(outcome.uri))
    best = answer.matches[0] if answer.matches else None
    distance_m = None if best is None else outcome.position.distance_m(best.record.position)
    truth = {
        "right": distance_m is not None and distance_m <= threshold_m,
        "distance_m": None if distance_m is None else round(distance_m, 2),
        "threshold_m": threshold_m,
    }
    return {"image": outcome.uri, **answer.to_dict(), "truth": truth}

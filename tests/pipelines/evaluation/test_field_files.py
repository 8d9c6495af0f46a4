"""Exported files, read back by readers that know only the documented formats."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.weights import load_extractor
from pipelines.evaluation.job import evaluate
from tests.support.city_store import CityStore, make_city_store
from tests.support.made_evaluations import make_evaluation, make_outcome


def read_preds(path: Path) -> tuple[str, list[str], list[str]]:
    """Read a file of VPR-methods-evaluation: three blocks, each with a heading, an empty line after each."""
    blocks: dict[str, list[str]] = {}
    for line in path.read_text().split("\n"):
        if line in ("Query path:", "Predictions paths:", "Positives paths:"):
            current = blocks.setdefault(line, [])
        elif line:
            current.append(line)
    assert list(blocks) == ["Query path:", "Predictions paths:", "Positives paths:"]
    (query,) = blocks["Query path:"]
    return query, blocks["Predictions paths:"], blocks["Positives paths:"]


def read_log(path: Path) -> dict[int, float]:
    """Read the last line of a log as `R@1: 98.8, R@5: 99.7, ...`."""
    last = path.read_text().rstrip("\n").split("\n")[-1]
    assert re.fullmatch(r"R@\d+: \d+\.\d(, R@\d+: \d+\.\d)*", last)
    return {int(k): float(value) for k, value in re.findall(r"R@(\d+): ([\d.]+)", last)}


def read_msls(path: Path) -> dict[str, list[str]]:
    """Read MSLS's prediction file: comments, then a key and its predictions per line."""
    lines = [line.split(" ") for line in path.read_text().splitlines() if not line.startswith("#")]
    return {query: predictions for query, *predictions in lines}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> CityStore:
    return make_city_store(tmp_path_factory.mktemp("city"), database=24, queries=6)


@pytest.mark.integration
def test_files_of_the_field_give_the_same_recall(city: CityStore, tmp_path: Path) -> None:
    result = evaluate(city.folder / "city", store_uri=city.uri, predictions=tmp_path, descriptors=True)
    log = read_log(tmp_path / "info.log")
    assert log == {k: round(result.recall["reranked"][str(k)], 1) for k in (1, 5, 10, 20)}

    files = sorted((tmp_path / "preds").glob("*.txt"))
    assert [path.name for path in files] == [f"{number:03d}.txt" for number in range(6)]
    read = [read_preds(path) for path in files]
    assert [query for query, _, _ in read] == sorted(map(str, city.queries))
    for k in (1, 5, 10, 20):
        hits = [bool(set(predictions[:k]) & set(positives)) for _, predictions, positives in read]
        assert round(100 * sum(hits) / len(hits), 1) == log[k]
    assert all(len(predictions) == 20 for _, predictions, _ in read)

    keys = read_msls(tmp_path / "msls_predictions.txt")
    for query, predictions, _ in read:
        key = query.split("@")[7]
        assert keys[key][:20] == [path.split("@")[7] for path in predictions]

    queries, database = (np.load(tmp_path / f"{side}_descriptors.npy") for side in ("queries", "database"))
    paths = (tmp_path / "database_paths.txt").read_text().splitlines()
    assert paths == sorted(map(str, city.database))
    assert queries.dtype == database.dtype == np.float32
    nearest = [paths[row] for row in (database @ queries.T).argmax(axis=0)]
    by_similarity = [outcome.matches[outcome.by_similarity()[0]].record.uri for outcome in result.outcomes]
    assert nearest == by_similarity
    extracted = load_extractor("efficientnet-lite0").extract([read[0][0]])[0][0]
    assert queries[0] == pytest.approx(extracted, abs=1e-5)

    table = pq.read_table(tmp_path / "queries.parquet").to_pylist()
    with (tmp_path / "queries.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (
        [row["query"] for row in rows] == [row["query"] for row in table] == [query for query, _, _ in read]
    )
    found = [row["first_hit_reranked"] for row in table]
    assert 100 * sum(hit == 1 for hit in found) / 6 == pytest.approx(result.recall["reranked"]["1"], abs=0.01)
    assert [float(row["error_m_reranked"]) for row in rows] == [row["error_m_reranked"] for row in table]


def test_names_with_line_breaks_and_spaces_stay_on_their_line(tmp_path: Path) -> None:
    from pipelines.evaluation.predictions import write_predictions

    outcomes = [make_outcome(0, [3.0, 90.0], folder="/q/a b\nPredictions paths:\n"), make_outcome(1, [])]
    write_predictions(tmp_path, make_evaluation(outcomes), {"0-1.jpg": "/db/with\nbreak.jpg"})
    query, predictions, positives = read_preds(tmp_path / "preds/000.txt")
    assert "Predictions paths: /0.jpg" in query
    assert (len(predictions), positives) == (2, ["/db/with break.jpg"])
    assert read_preds(tmp_path / "preds/001.txt")[1:] == ([], [])
    assert read_msls(tmp_path / "msls_predictions.txt")["0"] == ["0-1", "0-2"]

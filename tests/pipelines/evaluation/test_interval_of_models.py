"""The interval of the difference between two real settings of descriptors, on queries of a drawn city."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.weights import load_extractor
from pipelines.demo.dataset import draw_city
from pipelines.evaluation.comparison import Comparison, compare
from pipelines.evaluation.intervals import clustered_bootstrap
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.result import Evaluation
from pipelines.sources import list_source
from serving.engine import QueryEngine
from storage.store import Store
from tests.support.city_store import MODEL, commit_photos

PLACES, VIEWS = 100, 4  # of the city; photos of one place can share a right answer
DRAWN = 60  # places per repeat
REPEATS = 1000


def evaluated(city: Path, uri: Path, side_px: int) -> Evaluation:
    """Index and evaluate a city with the default model at an input size, by descriptors alone."""
    extractor = load_extractor(MODEL, image_size=(side_px, side_px))
    store = Store.create(uri, extractor.card.stored_as("none"))
    with store.lease():
        commit_photos(store, extractor, list_source(city / "images/test/database"))
    return measure_recall(city, QueryEngine(store, extractor))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("city")
    draw_city(
        folder / "city",
        seed=11,
        database_images=2 * PLACES,
        query_images=VIEWS * PLACES,
        size=(160, 120),
        workers=1,
        hard=True,
        spacing_m=60.0,
    )
    first, second = (evaluated(folder / "city", folder / f"s{side}", side) for side in (128, 224))
    return compare(first, second)


@pytest.mark.slow
def test_the_interval_of_two_settings_holds_the_truth_as_often_as_it_says(comparison: Comparison) -> None:
    arrays = comparison.arrays
    paired = arrays.won.astype(np.float64) - arrays.lost
    truth = paired.mean()
    assert comparison.places >= DRAWN
    assert arrays.won.sum() > 20, "the settings differ in many queries, in both directions"
    assert arrays.lost.sum() > 5
    low, high = clustered_bootstrap(paired, arrays.places, np.mean)
    at_1 = comparison.differences["final"]["1"]
    assert at_1["interval"] == [round(100 * low, 2), round(100 * high, 2)]
    assert at_1["difference"] == pytest.approx(100 * truth, abs=0.01)

    # All queries are the truth, and each repeat photographs some of their places.
    rng = np.random.default_rng(7)
    members = [np.flatnonzero(arrays.places == place) for place in np.unique(arrays.places)]
    held = 0
    for repeat in range(REPEATS):
        chosen = [members[place] for place in rng.integers(len(members), size=DRAWN)]
        rows = np.concatenate(chosen)
        places = np.repeat(np.arange(DRAWN), [len(one) for one in chosen])
        low, high = clustered_bootstrap(paired[rows], places, np.mean, seed=repeat)
        held += low <= truth <= high
    print(f"{comparison.headline()}; held in {held} of {REPEATS}, {len(members)} places")
    assert 0.93 * REPEATS <= held <= 0.97 * REPEATS

"""Parts of the benchmark of a living service: the store around photos, and what counts as a wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.asking import Answer
from benchmarks.bench_living_service import TRAINING_S, trained_anew
from benchmarks.living_changes import Changes, Planted
from benchmarks.living_store import IndexedPhotos, LivingStore, drawn_id
from tests.support.search_samples import seeded_queries
from tests.support.store_samples import DIM, make_card

PHOTOS = IndexedPhotos([], seeded_queries(3, 12, DIM), make_card().stored_as("none"), ())


@pytest.fixture
def city(tmp_path: Path) -> LivingStore:
    made = LivingStore(tmp_path / "store", 400, width=DIM, photos=PHOTOS)
    made.grow(400)
    return made


def test_the_last_row_of_a_commit_is_the_photo_that_is_asked_for(city: LivingStore) -> None:
    photo = PHOTOS.descriptors[4]
    assert city.store.search(photo[None], k=1)[0][0].similarity < 0.95
    city.grow(50, last=photo)
    best = city.store.search(photo[None], k=1)[0][0]
    assert best.record.image_id == drawn_id(449)
    assert best.similarity > 0.999
    city.delete([449])
    assert city.store.search(photo[None], k=1)[0][0].record.image_id != drawn_id(449)


def test_a_photo_looks_like_the_places_of_its_kind(city: LivingStore) -> None:
    found = city.store.search(PHOTOS.descriptors, k=400)
    similar = np.array([[hit.similarity for hit in hits] for hits in found])
    # One row in twelve is of its kind, with a mean similarity of 0.36; the others are as good as random.
    assert 0.2 < similar[:, :10].mean() < 0.95
    assert abs(similar[:, 100:300].mean()) < 0.2


@pytest.mark.parametrize(
    ("version", "first", "status", "wrong"),
    [
        (4, "other", 200, 0),
        (4, "planted", 200, 1),  # not yet
        (5, "planted", 200, 0),
        (7, "planted", 200, 0),
        (6, "other", 200, 1),
        (6, "neighbour", 200, 1),
        (8, "planted", 200, 1),  # no more
        (8, "other", 200, 0),
        (8, "neighbour", 200, 0),  # a similar photo's, which is there
        (9, "neighbour", 200, 1),
        (6, "", 503, 1),
    ],
)
def test_an_answer_is_judged_by_its_version(version: int, first: str, status: int, wrong: int) -> None:
    changes = Changes(None, None, 1.0, 100)  # type: ignore[arg-type]  # nothing is asked or ordered
    changes.planted = {0: Planted("planted", 5, 8), 1: Planted("neighbour", 2, 9)}
    assert changes.wrong([Answer(0, 0.0, 1.0, status, version, first)]) == wrong


@pytest.mark.parametrize(("aside", "training_s"), [(False, 221.0), (True, None)])
def test_training_that_does_not_end_in_time_has_no_duration(aside: bool, training_s: float | None) -> None:
    answer = Answer(0, 0.0, 20.0, 200, 1, "planted")
    run = SimpleNamespace(asking=SimpleNamespace(answers=[answer]), found_s=[0.5], gone_s=[0.5], ordered=[])
    watch = SimpleNamespace(works_aside=False, asides_s=[9.0], peak_mib=1200.0, loaded_mib=1000.0)

    def order(what: str, rows: list[int]) -> None:
        run.ordered.append((what, len(rows)))
        run.asking.answers.append(answer)

    def follow(goes_on: Callable[[float], bool]) -> None:
        assert goes_on(10)
        watch.works_aside = True
        assert goes_on(60)
        assert not goes_on(TRAINING_S)
        watch.works_aside = aside
        watch.asides_s += [] if aside else [221.0]
        run.found_s.append(1.0)
        run.gone_s.append(3.0)
        run.asking.answers.append(answer)

    run.order, run.follow, run.wrong = order, follow, lambda _: 0
    figures = trained_anew(run, watch, [answer], 200)  # type: ignore[arg-type]
    assert run.ordered == [("delete", 200)]
    assert figures["training_s"] == training_s
    assert figures["gone_after_s"] == {"count": 1, "median": 3.0, "max": 3.0, "over_2_s": 1}

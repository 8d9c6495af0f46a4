"""Pairs of matched images are drawn with the lines that the engine gives."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import ConnectionPatch

from models.images import ImageRejected
from placeray.plotting import PlottingUnavailable, plot_matches
from serving.answer import PlaceRecord
from serving.engine import QueryEngine
from serving.matching_options import Matching, ScoreKind
from storage.records import ImageRecord
from tests.support.city_store import CityStore


@pytest.fixture(scope="module")
def engine(city_store: CityStore) -> QueryEngine:
    return QueryEngine.open(city_store.uri)


def test_a_line_per_pair_up_to_the_limit(city_store: CityStore, engine: QueryEngine) -> None:
    photo = city_store.queries[0]
    match = engine.answer(photo).matches[0]
    assert match.mutual_matches is not None
    assert match.mutual_matches > 5
    for max_lines in (5, 10_000):
        figure = plot_matches(engine, photo, match, max_lines=max_lines)
        lines = [artist for artist in figure.get_children() if isinstance(artist, ConnectionPatch)]
        assert len(lines) == min(max_lines, match.mutual_matches)
        assert match.record.image_id in figure.axes[1].get_title()
        assert f"{match.mutual_matches} mutual nearest neighbours" in figure.get_suptitle()


@pytest.mark.parametrize("score", ["votes", "count"])
def test_matches_that_do_not_agree_are_grey(
    city_store: CityStore, engine: QueryEngine, score: ScoreKind
) -> None:
    engine = QueryEngine(engine.store, engine.extractor, matching=Matching(score=score))
    photo = city_store.queries[0]
    match = engine.answer(photo).matches[-1]
    agree = engine.matched_lines(photo, match.record).agree
    figure = plot_matches(engine, photo, match, max_lines=10_000)
    lines = [artist for artist in figure.get_children() if isinstance(artist, ConnectionPatch)]
    grey = [np.ptp(to_rgb(line.get_edgecolor())) < 0.1 for line in lines]
    assert sum(grey) == np.count_nonzero(~agree)
    assert any(grey) is (score == "votes")


def test_a_file_other_than_the_indexed_one_is_not_drawn(city_store: CityStore, engine: QueryEngine) -> None:
    match = engine.answer(city_store.queries[0]).matches[0]
    assert isinstance(match.record, ImageRecord)
    elsewhere = replace(match, record=replace(match.record, uri=str(city_store.queries[1])))
    with pytest.raises(ImageRejected, match="not the photo that was indexed"):
        plot_matches(engine, city_store.queries[0], elsewhere)
    named = PlaceRecord(match.record.image_id, "elsewhere", match.record.position)  # of an answer in JSON
    assert plot_matches(engine, city_store.queries[0], replace(match, record=named))


def test_matplotlib_missing(
    city_store: CityStore, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    match = engine.answer(city_store.queries[0]).matches[0]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlottingUnavailable, match=r"pip install 'placeray\[plot\]'"):
        plot_matches(engine, city_store.queries[0], match)

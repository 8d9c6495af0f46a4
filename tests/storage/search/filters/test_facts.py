"""Filters by heading, time and tag, and several filters at once."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.position import Position
from storage.search.filters import AllOf, BadFilter, Heading, Near, Tagged, Taken, all_of
from storage.search.row_filter import RowFilter
from tests.storage.search.filters.rows import held_by_sql, rows_at, rows_with

NOON = datetime(2020, 6, 1, 12, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(-360, 360), st.integers(0, 180), st.lists(st.integers(0, 360), min_size=1))
def test_headings_are_compared_around_the_circle(heading: int, tolerance: int, stored: list[int]) -> None:
    inside = Heading(heading, tolerance).mask(rows_with("heading_deg", [*stored, None], pa.float64()))
    away = [min(abs(h - heading - 360 * turn) for turn in range(-3, 4)) for h in stored]
    assert inside.tolist() == [degrees <= tolerance for degrees in away] + [False]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.none() | st.integers(-5, 5),
    st.none() | st.integers(-5, 5),
    st.lists(st.none() | st.integers(-6, 6), min_size=1),
)
def test_a_span_of_time_has_its_beginning_and_not_its_end(
    after: int | None, before: int | None, stored: list[int | None]
) -> None:
    def at(hours: int | None) -> datetime | None:
        return None if hours is None else NOON + timedelta(hours=hours)

    if (after is None and before is None) or (None not in (after, before) and before <= after):  # type: ignore[operator]
        with pytest.raises(BadFilter, match=r"give|exchange"):
            Taken(at(after), at(before))
        return
    inside = Taken(at(after), at(before)).mask(rows_with("captured_at", [at(h) for h in stored], STAMP))
    assert inside.tolist() == [
        hour is not None and (after is None or hour >= after) and (before is None or hour < before)
        for hour in stored
    ]


def test_times_are_compared_as_moments_and_without_a_zone_in_utc() -> None:
    rows = rows_with("captured_at", [NOON], STAMP)
    berlin = timezone(timedelta(hours=2))
    assert Taken(after=datetime(2020, 6, 1, 14, tzinfo=berlin)).mask(rows).tolist() == [True]
    assert Taken(after=datetime(2020, 6, 1, 14)).mask(rows).tolist() == [False]
    assert Taken(before=datetime(2020, 6, 1, 12, 0, 0, 1)).mask(rows).tolist() == [True]


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_tag_is_one_of_the_row_s_own_and_not_a_part_of_one(dictionary: bool) -> None:
    texts = [
        *('["night", "rain"]', '["nights"]', '["\\u006eight"]', '["NIGHT"]', None, "[]"),
        *("night", '"night"', '{"night": 1}', '[["night"]]', "[" * 50_000),
    ]
    rows = rows_with("tags", texts, pa.string())
    if dictionary:
        rows = pa.table({"tags": rows["tags"].dictionary_encode()})
    assert Tagged("night").mask(rows).tolist() == [True, False, True, *[False] * 8]
    assert Tagged("night").mask(rows.slice(0, 0)).tolist() == []
    assert Tagged("n\u00e4cht").mask(rows_with("tags", [json.dumps(["n\u00e4cht"])], pa.string())).all()


def test_a_store_without_tags_has_no_row_with_one() -> None:
    assert not Tagged("night").mask(rows_with("image_id", ["a", "b"], pa.string())).any()


def test_all_filters_hold_together(tmp_path: Path) -> None:
    spots = [Position(lat=48.0, lon=11.0 + step / 10_000) for step in range(20)]
    headings = pa.array([step * 30.0 % 360 for step in range(20)])
    rows = rows_at(spots).append_column("heading_deg", headings)
    rows = rows.append_column("captured_at", pa.array([NOON + timedelta(days=s) for s in range(20)], STAMP))
    rows = rows.append_column("tags", pa.array(['["a"]', None] * 10))
    filters: list[RowFilter] = [
        Near(48.0, 11.0, 100.0), Heading(90.0, 45.0), Taken(after=NOON + timedelta(days=2)), Tagged("a"),
    ]  # fmt: skip
    both = all_of(filters)
    assert isinstance(both, AllOf)
    expected = np.logical_and.reduce([each.mask(rows) for each in filters])
    assert both.mask(rows).tolist() == expected.tolist()
    assert 0 < expected.sum() < min(each.mask(rows).sum() for each in filters)
    assert set(both.columns) == {
        "lat",
        "lon",
        "utm_e",
        "utm_n",
        "utm_zone",
        "heading_deg",
        "captured_at",
        "tags",
    }
    read = np.array(held_by_sql(tmp_path, rows, both.predicate() or "true"))
    assert not (expected & ~read).any()
    assert pickle.loads(pickle.dumps(both)) == both
    assert hash(both) == hash(all_of(filters))
    assert all_of([]) is None
    assert all_of(filters[:1]) is filters[0]


@pytest.mark.parametrize(
    ("heading", "tolerance"), [(400.0, 1.0), (0.0, -1.0), (0.0, 181.0), (float("nan"), 1.0)]
)
def test_directions_out_of_range_are_refused(heading: float, tolerance: float) -> None:
    with pytest.raises(BadFilter, match="give"):
        Heading(heading, tolerance)


@pytest.mark.parametrize("tag", ["", "x" * 201])
def test_tags_that_cannot_be_are_refused(tag: str) -> None:
    with pytest.raises(BadFilter, match="give"):
        Tagged(tag)

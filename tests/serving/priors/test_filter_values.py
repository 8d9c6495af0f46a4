"""Filters as texts and numbers, and as the parameters of a request and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from serving.priors.filter_values import FilterValues, read_moment, read_prior
from serving.priors.parameters import parameters_of
from serving.priors.soft_prior import SoftPrior
from storage.search.filters import AllOf, BadFilter, Heading, Near, Tagged, Taken, all_of
from storage.search.filters.polygon import Inside

GEOJSON = '{"type":"Polygon","coordinates":[[[11,48],[12,48],[12,49],[11,48]]]}'
EVERYTHING: dict[str, Any] = {
    "near": "48.1,-11.5", "radius_m": 300.0, "within": GEOJSON, "heading": 90.0, "heading_tolerance": 20.0,
    "taken_after": "2019", "taken_before": "2020-07", "tags": ("night", "rain"),
}  # fmt: skip


def read(parameters: dict[str, Any]) -> FilterValues:
    """Read parameters as a service does."""
    values = {name: value for name, value in parameters.items() if name not in ("tag", "prior")}
    return FilterValues(**values, tags=tuple(parameters.get("tag", ())))


def test_each_value_is_a_filter_and_all_of_them_hold_together() -> None:
    row_filter = FilterValues(**EVERYTHING).row_filter()
    assert isinstance(row_filter, AllOf)
    near, inside, heading, taken, *tags = row_filter.filters
    assert near == Near(48.1, -11.5, 300.0)
    assert isinstance(inside, Inside)
    assert heading == Heading(90.0, 20.0)
    assert taken == Taken(datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 7, 1, tzinfo=UTC))
    assert tags == [Tagged("night"), Tagged("rain")]
    assert FilterValues().row_filter() is None
    assert FilterValues(heading=0.0).row_filter() == Heading(0.0, 45.0)


@pytest.mark.parametrize("prior", [None, SoftPrior(-33.8, 151.2, 0.1)])
def test_filters_are_the_same_after_a_request_carried_them(prior: SoftPrior | None) -> None:
    row_filter = FilterValues(**EVERYTHING).row_filter()
    parameters = parameters_of(row_filter, prior)
    assert read(parameters).row_filter() == row_filter
    assert parameters_of(None, None) == {}
    if prior is not None:
        assert read_prior(parameters["prior"]) == prior


class Own:
    """A filter of somebody's own."""

    columns = ("image_id",)

    def mask(self, rows: pa.Table) -> Any:
        return np.ones(len(rows), bool)

    def predicate(self) -> None:
        return None


def test_what_a_request_cannot_carry_is_refused() -> None:
    for within in (Own(), all_of([Near(0, 0, 1), Near(1, 1, 1)])):
        with pytest.raises(BadFilter, match="store"):
            parameters_of(within, None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"near": "48,11"}, "--near goes with --radius-m"),
        ({"radius_m": 5.0}, "--radius-m goes with --near"),
        ({"heading_tolerance": 5.0}, "--heading-tolerance goes with --heading"),
        ({"near": "48", "radius_m": 5.0}, "'48' cannot be read"),
        ({"near": "48,x", "radius_m": 5.0}, "'48,x' cannot be read"),
        ({"near": "48,11,5", "radius_m": 5.0}, "cannot be read"),
        ({"near": "148,11", "radius_m": 5.0}, "not a position"),
        ({"near": "9" * 10_000, "radius_m": 5.0}, "cannot be read"),
        ({"within": "{}"}, "GeoJSON cannot be used"),
        ({"taken_after": "yesterday"}, "not a time"),
        ({"taken_after": "0000"}, "not a time"),
        ({"taken_after": "2020", "taken_before": "2019"}, "exchange"),
        ({"tags": tuple(map(str, range(21)))}, "21 tags"),
    ],
)
def test_values_that_do_not_go_together_name_the_flag(values: dict[str, Any], words: str) -> None:
    with pytest.raises(BadFilter) as refused:
        FilterValues(**values).row_filter(lambda name: "--" + name.replace("_", "-"))
    assert words in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2019", datetime(2019, 1, 1)),
        ("2019-07", datetime(2019, 7, 1)),
        ("2019-07-02", datetime(2019, 7, 2)),
        ("2019-07-02T12:30:00+02:00", datetime(2019, 7, 2, 10, 30)),
        ("2019-07-02 12:30Z", datetime(2019, 7, 2, 12, 30)),
    ],
)
def test_times_are_read_as_iso_8601_years_and_months(text: str, moment: datetime) -> None:
    assert read_moment(text) == moment.replace(tzinfo=UTC)

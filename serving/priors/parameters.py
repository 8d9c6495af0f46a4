"""Filters and priors as the query parameters of a request."""

from __future__ import annotations

import json
from typing import Any

from serving.priors.soft_prior import SoftPrior
from storage.search.filters import AllOf, BadFilter, Heading, Inside, Near, Tagged, Taken
from storage.search.row_filter import RowFilter

__all__ = ["parameters_of"]


def parameters_of(within: RowFilter | None, prior: SoftPrior | None) -> dict[str, Any]:
    """Return the parameters of `POST /v1/query` that ask for the same.

    Raises:
        BadFilter: the filter is not one that a request can carry.
    """
    parameters: dict[str, Any] = {}
    for each in _parts(within):
        values = _values_of(each)
        if "tag" in values:
            values["tag"] = [*parameters.get("tag", ()), *values["tag"]]
        elif values.keys() & parameters.keys():
            raise BadFilter(
                "a service takes one filter of each kind: leave one out, or open the store itself"
            )
        parameters |= values
    if prior is not None:
        parameters["prior"] = ",".join(repr(float(value)) for value in (prior.lat, prior.lon, prior.sigma_m))
    return parameters


def _parts(within: RowFilter | None) -> tuple[RowFilter, ...]:
    if isinstance(within, AllOf):
        return tuple(part for each in within.filters for part in _parts(each))
    return () if within is None else (within,)


def _values_of(each: RowFilter) -> dict[str, Any]:
    match each:
        case Near():
            return {"near": f"{float(each.lat)!r},{float(each.lon)!r}", "radius_m": each.radius_m}
        case Inside():
            polygons = {"type": "MultiPolygon", "coordinates": each.polygons}
            return {"within": json.dumps(polygons, separators=(",", ":"))}
        case Heading():
            return {"heading": each.heading_deg, "heading_tolerance": each.tolerance_deg}
        case Taken():
            times = {"taken_after": each.after, "taken_before": each.before}
            return {name: time.isoformat() for name, time in times.items() if time is not None}
        case Tagged():
            return {"tag": [each.tag]}
        case _:
            raise BadFilter(f"a service takes no filter {type(each).__name__}: use the store itself")

"""Query parameters by which a request says what it already knows: filters, and a soft prior."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from fastapi import Query
from pydantic import Field

from serving.errors import refusal_of
from serving.priors.filter_values import (
    HEADING_TOLERANCE_DEG,
    MAX_TAGS,
    POSITION,
    PRIOR,
    FilterValues,
    read_prior,
    unreadable,
)
from serving.priors.soft_prior import SoftPrior
from storage.search.filters import BadFilter
from storage.search.filters.near import MAX_RADIUS_M
from storage.search.filters.tags import MAX_TAG_LENGTH
from storage.search.row_filter import RowFilter

__all__ = ["Priors", "read_priors"]

MAX_GEOJSON_CHARACTERS = 16_000  # as much as servers and proxies accept in an address
_NUMBER = r"-?[0-9]{1,8}(\.[0-9]{1,17})?"
_TIME = "a time in ISO 8601, or a year or month; without a zone it is UTC"
_POSITION_FORM = f"^{_NUMBER},{_NUMBER}$"
_PRIOR_FORM = f"^{_NUMBER},{_NUMBER},{_NUMBER}$"
_DEGREES = "in degrees, such as 48.137,11.575"


class Priors(NamedTuple):
    """What a request knows: which images may be found, and where the photo was probably taken."""

    within: RowFilter | None
    prior: SoftPrior | None


def _described(pattern: str, *, max_length: int) -> Any:
    """Return a text's form for the description alone: `_require` says in words what it should be."""
    return Field(max_length=max_length, json_schema_extra={"pattern": pattern})


# Asynchronous, since FastAPI gives each call of a plain function a thread.
async def read_priors(
    near: Annotated[
        Annotated[str, _described(_POSITION_FORM, max_length=60)] | None,
        Query(
            description=f"only images around this latitude and longitude {_DEGREES}; with radius_m",
        ),
    ] = None,
    radius_m: Annotated[
        float | None, Query(gt=0, le=MAX_RADIUS_M, allow_inf_nan=False, description="of near, in metres")
    ] = None,
    within: Annotated[
        str | None,
        Query(
            max_length=MAX_GEOJSON_CHARACTERS,
            description="only images inside of these polygons: GeoJSON, a geometry, feature or collection",
        ),
    ] = None,
    heading: Annotated[
        float | None,
        Query(ge=-360, le=360, allow_inf_nan=False, description="only images that look this way, in degrees"),
    ] = None,
    heading_tolerance: Annotated[
        float | None,
        Query(
            ge=0,
            le=180,
            allow_inf_nan=False,
            description=f"largest difference to heading, in degrees; default: {HEADING_TOLERANCE_DEG:g}",
        ),
    ] = None,
    taken_after: Annotated[
        str | None, Query(max_length=60, description=f"only images taken from then on: {_TIME}")
    ] = None,
    taken_before: Annotated[
        str | None, Query(max_length=60, description=f"only images taken before: {_TIME}")
    ] = None,
    tag: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_TAG_LENGTH)]] | None,
        Query(max_length=MAX_TAGS, description="only images with this tag; of several, with all of them"),
    ] = None,
    prior: Annotated[
        Annotated[str, _described(_PRIOR_FORM, max_length=90)] | None,
        Query(
            description=f"where the photo was probably taken {_DEGREES}, and the standard deviation of "
            "that in metres: places near it rank better, none is left out",
        ),
    ] = None,
) -> Priors:
    """Read filters and prior; of a request, they are refused with 422 where they cannot be used.

    Raises:
        Refusal: a value cannot be read or is out of range, or one is missing beside another.
    """
    values = FilterValues(
        near=near,
        radius_m=radius_m,
        within=within,
        heading=heading,
        heading_tolerance=heading_tolerance,
        taken_after=taken_after,
        taken_before=taken_before,
        tags=tuple(tag or ()),
    )
    try:
        _require(near, _POSITION_FORM, POSITION)
        _require(prior, _PRIOR_FORM, PRIOR)
        return Priors(values.row_filter(), None if prior is None else read_prior(prior))
    except BadFilter as error:
        refusal = refusal_of(error)
        assert refusal is not None
        raise refusal from None


def _require(text: str | None, pattern: str, what: str) -> None:
    if text is not None and not re.fullmatch(pattern, text):
        raise unreadable(text, what)

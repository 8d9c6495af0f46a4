"""The flags of what the asker already knows: filters and a soft prior. Imports no heavy libraries."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from pipelines.cli.flags import add_flag

__all__ = ["add_filter_flags", "add_prior_flag", "filter_from", "join_coordinates", "priors_from"]

_NEGATIVE = re.compile(r"-\.?\d")
_TIME = "a time such as 2019, 2019-07-01 or 2019-07-01T12:00:00+02:00; without a zone it is UTC"


def add_filter_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags that choose which stored images may be found."""
    flag = partial(add_flag, parser)
    flag("near", str, "only images around this position in degrees; with --radius-m", metavar="LAT,LON")
    flag("radius_m", float, "radius of --near in metres", gt=0)
    help = "only images inside of the polygons of this GeoJSON file"
    flag("within", str, help, metavar="GEOJSON")
    flag("heading", float, "only images that look this way, in degrees", metavar="DEG", ge=-360, le=360)
    help = "largest difference to --heading; default: 45"
    flag("heading_tolerance", float, help, metavar="DEG", ge=0, le=180)
    flag("taken_after", str, f"only images taken from then on: {_TIME}", metavar="TIME")
    flag("taken_before", str, "only images taken before, likewise", metavar="TIME")
    help = "only images with this tag; given several times: with all of them"
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help=help)


def add_prior_flag(parser: argparse._ActionsContainer) -> None:
    """Add the flag of the soft prior."""
    help = (
        "where the photos were probably taken, in degrees, and the standard deviation of that in metres: "
        "places near it rank better, none is left out"
    )
    add_flag(parser, "prior", str, help, metavar="LAT,LON,SIGMA_M")


def join_coordinates(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which a negative latitude behind its flag is not taken for another flag."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--near", "--prior") and _NEGATIVE.match(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def priors_from(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments `within` and `prior` of a query, as far as their flags are given.

    Raises:
        BadFilter: a value cannot be read or is out of range, or a flag is missing beside another.
    """
    given = {"within": filter_from(args)}
    if args.prior is not None:
        from serving.priors.filter_values import read_prior

        given["prior"] = read_prior(args.prior)
    return {name: value for name, value in given.items() if value is not None}


def filter_from(args: argparse.Namespace) -> Any:
    """Return the filter of the flags; None where none of them is given.

    Raises:
        BadFilter: as of `priors_from`.
    """
    names = ("near", "radius_m", "heading", "heading_tolerance", "taken_after", "taken_before")
    if not args.tag and args.within is None and all(getattr(args, name) is None for name in names):
        return None
    from serving.priors.filter_values import FilterValues
    from storage.search.filters import read_geojson

    values = FilterValues(
        **{name: getattr(args, name) for name in names},
        within=None if args.within is None else read_geojson(args.within),
        tags=tuple(args.tag),
    )
    return values.row_filter(lambda name: "--" + name.replace("_", "-"))

"""Frame numbers of images of a drive that was repeated, such as Nordland's four seasons."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.evaluation.protocols import BadProtocol

__all__ = ["frames_of_sides"]

_DIGITS = re.compile(r"(\d+)")
_LAST_NUMBER = re.compile(r"(\d{1,12})\D*$")


def frames_of_sides(
    database: pa.Table, queries: pa.Table, stride: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the frame number of each image by path, for both sides of a data set.

    Sides with a frame for each of the other (or for every `stride`-th) are counted in their order; others
    need numbers in their file names that mean the same on both sides.

    Args:
        database: Listing of the database.
        queries: Listing of all queries.
        stride: Frames of the database from one query to the next.

    Raises:
        BadProtocol: the sides differ in length and their names have no numbers.
    """
    sides = (database, queries)
    if len({side.num_rows for side in sides}) == 1 or stride > 1:
        numbers = [np.arange(side.num_rows) for side in sides]
        numbers[1] *= stride
        ordered = [_in_order(side) for side in sides]
    else:
        ordered = [side["uri"].to_pylist() for side in sides]
        numbers = [_numbers(uris) for uris in ordered]
    first, second = (
        dict(zip(uris, map(int, frames), strict=True)) for uris, frames in zip(ordered, numbers, strict=True)
    )
    return first, second


def _in_order(side: pa.Table) -> list[str]:
    """Return the paths in the order of the drive.

    Names with metres along a line that begins at 0 (`@0@2.4@...`) are in the order of the metres, others in
    the order of their names with numbers as numbers.
    """
    rows = side.select(["uri", "utm_e", "utm_n"]).to_pylist()
    if {row["utm_e"] for row in rows} == {0.0} and all(row["utm_n"] is not None for row in rows):
        return [row["uri"] for row in sorted(rows, key=lambda row: (row["utm_n"], row["uri"]))]
    return sorted((row["uri"] for row in rows), key=_natural)


def _natural(uri: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in _DIGITS.split(uri)]


def _numbers(uris: list[str]) -> NDArray[np.int64]:
    found = [_LAST_NUMBER.search(Path(uri).stem) for uri in uris]
    numbers = [int(match[1]) for match in found if match is not None]
    if len(set(numbers)) != len(uris):
        example = next((uri for uri, match in zip(uris, found, strict=True) if match is None), uris[0])
        raise BadProtocol(
            f"the two sides have different numbers of images, and {example} has no frame number of its own: "
            "name files by frame, or give as many queries as database images"
        )
    return np.array(numbers, np.int64)

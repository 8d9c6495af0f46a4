"""Values of JSON that may have been written by anybody: of the expected types, finite, in range."""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["finite_number", "parse_object", "whole_number"]


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: it is not UTF-8, not JSON (NaN and Infinity are not), nested too deeply, or not an object.
    """
    try:
        values = json.loads(data if isinstance(data, str) else data.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError(f"a JSON object is expected, not {type(values).__name__}")
    return values


def whole_number(value: object, lowest: int, highest: int) -> int:
    """Return a whole number within bounds.

    Raises:
        ValueError: it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ValueError(f"a whole number from {lowest} to {highest} is expected, not {_shown(value)}")
    return value


def finite_number(value: object, lowest: float, highest: float) -> float:
    """Return a number within finite bounds.

    Raises:
        ValueError: it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number is expected, not {_shown(value)}")
    if not lowest <= value <= highest:  # False for NaN
        raise ValueError(f"a number from {lowest:g} to {highest:g} is expected, not {_shown(value)}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _shown(value: object) -> str:
    try:
        return repr(value)[:60]
    except (RecursionError, ValueError):  # nested too deeply, or an integer of thousands of digits
        return type(value).__name__

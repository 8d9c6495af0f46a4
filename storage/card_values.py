"""The range of each value on a card, which may come from somebody else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from storage.json_values import finite_number, whole_number

__all__ = ["check_card_values"]

# The name of an architecture, never a path: models are loaded by it.
_MODEL_NAME = re.compile(r"(?:(?:custom|timm):)?[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LEARNED = ("aggregation_sha256", "local_whitening_sha256")
_MAX_SIDE, _MAX_WIDTH, _MAX_PIXELS, _MAX_FEATURES = 1 << 14, 1 << 16, 1 << 26, 1 << 28


def check_card_values(values: dict[str, Any]) -> None:
    """Check the values of a card's JSON that are there; a missing one is for the card itself to report.

    Raises:
        ValueError: one has another type, or is out of range.
    """
    for name, check in _CHECKS.items():
        if name in values:
            _named(name, check, values[name])
    for name, check in _PREPROCESSING.items():
        _named(f"preprocessing.{name}", check, values["preprocessing"][name])
    if values["format_version"] < 3 and (early := [name for name in _LEARNED if name in values]):
        raise ValueError(f"{early[0]}: only cards of format 3 have it")
    grid = values["grid_height"] * values["grid_width"] * values["feature_dim"]
    stored = values["format_version"] > 1 and values.get("feature_encoding", "float16") != "none"
    if not grid and stored:
        raise ValueError("a grid without cells has no local features to keep")
    if grid > _MAX_FEATURES:
        raise ValueError(f"local features of {grid} numbers per image are too many")
    if values["preprocessing"]["height"] * values["preprocessing"]["width"] > _MAX_PIXELS:
        raise ValueError("the network's input is too large")


def _named(name: str, check: Callable[[Any], object], value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _text(pattern: re.Pattern[str]) -> Callable[[Any], None]:
    def check(value: object) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"not of the form {pattern.pattern}")

    return check


def _one_of(*choices: str) -> Callable[[Any], None]:
    def check(value: object) -> None:
        if value not in choices:
            raise ValueError(f"not one of {', '.join(choices)}")

    return check


def _between(lowest: int, highest: int) -> Callable[[Any], int]:
    return lambda value: whole_number(value, lowest, highest)


def _or_none(check: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda value: None if value is None else check(value)


def _three(lowest: float, highest: float) -> Callable[[Any], None]:
    def check(value: object) -> None:
        if not isinstance(value, list) or len(value) != 3:
            raise ValueError("three numbers are expected")
        for number in value:
            finite_number(number, lowest, highest)

    return check


def _whole_bytes(value: object) -> None:
    if whole_number(value, 8, _MAX_WIDTH) % 8:
        raise ValueError("not a multiple of eight")


_CHECKS: dict[str, Callable[[Any], object]] = {
    "model": _text(_MODEL_NAME),
    "weights_sha256": _text(_DIGEST),
    "descriptor_dim": _between(1, _MAX_WIDTH),
    "descriptor_dtype": _one_of("float16", "float32"),
    "grid_height": _between(0, _MAX_SIDE),
    "grid_width": _between(0, _MAX_SIDE),
    "feature_dim": _between(0, _MAX_WIDTH),
    "feature_dtype": _one_of("float16"),
    "metric": _one_of("cosine"),
    "min_similarity": _or_none(lambda value: finite_number(value, -2.0, 2.0)),
    "code_bits": _or_none(_whole_bytes),
    "feature_layer": _or_none(_between(0, 1000)),
    "feature_part": _or_none(_one_of("value", "key", "query")),
    "attended_share": _or_none(lambda value: finite_number(value, 1e-6, 1.0)),
    "aggregation": _or_none(_one_of("learned", "gem")),
    "score": _or_none(_one_of("votes", "count")),
    "projection_sha256": _or_none(_text(_DIGEST)),
    **dict.fromkeys(_LEARNED, _or_none(_text(_DIGEST))),
}
_PREPROCESSING: dict[str, Callable[[Any], object]] = {
    "resize": _one_of("pil_bilinear", "tensor_bilinear", "tensor_antialiased"),
    "height": _between(1, _MAX_SIDE),
    "width": _between(1, _MAX_SIDE),
    "mean": _three(-1e3, 1e3),
    "std": _three(1e-6, 1e3),
}

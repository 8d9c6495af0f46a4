"""Flags generated from settings: type, choices, bounds, default and help come from the field."""

from __future__ import annotations

import argparse
import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["add_flag", "add_settings"]

_UNITS = ("s", "ms", "m", "deg", "mib", "gib")
_COMPARISONS = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt}
_COMPARISON_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Setting:
    """A setting as the parser needs it.

    Attributes:
        kind: Its type, such as `int`, `float | None`, `Literal["a", "b"]` or `tuple[int, int]`.
        default: Its default; None: none, or one that `help` names.
        help: What it does. Without `default:` in it, the default is appended.
        bounds: Any of ge, gt, le and lt.
    """

    kind: Any
    default: Any
    help: str
    bounds: Mapping[str, float]


def add_flag(
    parser: argparse._ActionsContainer,
    name: str,
    kind: Any,
    help: str,
    *,
    default: Any = None,
    metavar: str | None = None,
    **bounds: float,
) -> None:
    """Add a flag whose value is `default` when it is absent; see `Setting` for the arguments."""
    setting = Setting(kind, default, help, bounds)
    options = _options(name, setting, metavar)
    if options.get("action") != "store_true":
        options["default"] = default
    parser.add_argument(_flag(name), **options)


def add_settings(
    parser: argparse._ActionsContainer,
    settings: type,
    *names: str,
    aliases: Mapping[str, str] | None = None,
    **bounds: float,
) -> None:
    """Add flags for fields of a settings class; an absent flag leaves no value in the result.

    Args:
        parser: Gets the flags.
        settings: A dataclass, with `help` and bounds in the metadata of its fields, or a pydantic model, with
            descriptions.
        names: Names of the flags.
        aliases: Name of the field by name of the flag, where they differ.
        bounds: Bounds of these flags that are narrower than those of the fields.
    """
    fields = _read_settings(settings)
    for name in names:
        setting = fields[(aliases or {}).get(name, name)]
        setting = dataclasses.replace(setting, bounds={**setting.bounds, **bounds})
        parser.add_argument(_flag(name), **_options(name, setting), default=argparse.SUPPRESS)


def _read_settings(settings: Any) -> dict[str, Setting]:
    if not dataclasses.is_dataclass(settings):  # a pydantic model
        return {
            name: Setting(
                field.annotation,
                field.default,
                field.description or "",
                {
                    bound: getattr(constraint, bound)
                    for constraint in field.metadata
                    for bound in _COMPARISONS
                    if hasattr(constraint, bound)
                },
            )
            for name, field in settings.model_fields.items()
        }
    kinds = get_type_hints(settings)
    return {
        field.name: Setting(
            kinds[field.name],
            None if field.default is dataclasses.MISSING else field.default,
            field.metadata.get("help", ""),
            {bound: value for bound, value in field.metadata.items() if bound != "help"},
        )
        for field in dataclasses.fields(settings)
    }


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _options(name: str, setting: Setting, metavar: str | None = None) -> dict[str, Any]:
    """Return the arguments of `add_argument` without the default."""
    kind = _without_none(setting.kind)
    if kind is bool:
        return {"action": "store_true", "help": setting.help}
    text = setting.help
    if setting.default not in (None, "", ()) and "default:" not in text:
        text += f"; default: {_text(setting.default)}"
    text = text.replace("%", "%%")
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), "help": text}
    return {
        "type": _parser_of(kind, setting.bounds),
        "help": text,
        "metavar": metavar or _metavar(name, kind),
    }


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    return kind


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(name: str, kind: Any) -> str:
    last = name.rsplit("_", 1)[-1]
    if kind is str or last in _UNITS:
        return last.upper()
    if get_origin(kind) is tuple:
        one = "NAME" if str in get_args(kind) else "N"
        return f"{one},{one},..." if Ellipsis in get_args(kind) else "HxW"
    return "N" if kind is int else "X"


def _parser_of(kind: Any, bounds: Mapping[str, float]) -> Callable[[str], Any]:
    if get_origin(kind) is tuple:
        lists = _names if str in get_args(kind) else _integers
        return lists if Ellipsis in get_args(kind) else _size
    if kind in (int, float):
        return _number(kind, bounds)
    return str


def _number(kind: type[int] | type[float], bounds: Mapping[str, float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        # Written so that NaN is refused.
        if not all(_COMPARISONS[bound](value, limit) for bound, limit in bounds.items()):
            raise argparse.ArgumentTypeError(f"{text} is not {_range_text(bounds)}")
        return value

    parse.__name__ = "integer" if kind is int else "number"  # argparse says: "invalid integer value"
    return parse


def _range_text(bounds: Mapping[str, float]) -> str:
    return " and ".join(f"{_COMPARISON_WORDS[bound]} {limit:.7g}" for bound, limit in bounds.items())


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    size = int(height), int(width or height)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1x1")
    return size

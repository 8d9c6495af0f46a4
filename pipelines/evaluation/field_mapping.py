"""Results that are mappings of their fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

__all__ = ["FieldMapping"]


@dataclasses.dataclass(frozen=True, repr=False)
class FieldMapping(Mapping[str, Any]):
    """A dataclass that is a mapping of its fields, for `dict()` and JSON.

    Attributes:
        not_listed: Name of the field that is an attribute only.
    """

    not_listed: ClassVar[str]

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self) if field.name != self.not_listed]

"""Filter by tag."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.search.filters.errors import BadFilter

__all__ = ["MAX_TAG_LENGTH", "Tagged", "tags_of"]

MAX_TAG_LENGTH = 200


@dataclass(frozen=True)
class Tagged:
    """Rows that have a tag.

    Attributes:
        tag: Compared letter by letter.

    Raises:
        BadFilter: it is empty or too long.
    """

    columns: ClassVar[tuple[str, ...]] = ("tags",)

    tag: str

    def __post_init__(self) -> None:
        if not 0 < len(self.tag) <= MAX_TAG_LENGTH:
            raise BadFilter(f"a tag has 1 to {MAX_TAG_LENGTH} characters: give another one")

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which rows have the tag; in stores from before format 3 none has.

        Args:
            rows: N stored rows with `columns`.
        """
        if "tags" not in rows.column_names or not len(rows):
            return np.zeros(len(rows), np.bool_)
        column = rows["tags"].combine_chunks()
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = [*encoded.dictionary.to_pylist(), None]  # few: rows share them
        has = np.array([self.tag in tags_of(text) for text in texts], np.bool_)
        return np.asarray(has[np.asarray(encoded.indices.fill_null(len(texts) - 1))])

    def predicate(self) -> str:
        """Return a SQL condition that holds for these rows and maybe others."""
        return "tags IS NOT NULL"


def tags_of(text: str | None) -> tuple[str, ...]:
    """Return the tags of a row from its JSON; what is not a JSON array of strings has none."""
    try:
        values = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return ()
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()

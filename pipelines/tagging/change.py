"""A change of tags, applied to the JSON arrays that rows keep."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from storage.errors import PlacerayError
from storage.search.filters.tags import MAX_TAG_LENGTH, tags_of

__all__ = ["MAX_TAGS", "BadTag", "TagChange"]

MAX_TAGS = 100  # of one image


class BadTag(PlacerayError, ValueError):
    """A tag that cannot be given, or too many for one image."""

    reason = "bad_tag"


@dataclass(frozen=True)
class TagChange:
    """Tags to add and to remove.

    Attributes:
        add: Added behind those that an image has.
        remove: Removed where an image has them.

    Raises:
        BadTag: a tag is empty or too long, or is both added and removed.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("add", "remove"):
            cleaned = tuple(dict.fromkeys(map(_cleaned, getattr(self, name))))
            object.__setattr__(self, name, cleaned)
        both = set(self.add) & set(self.remove)
        if both:
            raise BadTag(f"tag {min(both)!r} is to be added and removed: give one of the two")

    def applied(self, text: str | None) -> str | None:
        """Return the tags of an image after the change, as a JSON array; None: it has none.

        Args:
            text: Its tags before, as a JSON array, or None.

        Raises:
            BadTag: they are too many.
        """
        kept = [tag for tag in dict.fromkeys((*tags_of(text), *self.add)) if tag not in self.remove]
        if len(kept) > MAX_TAGS:
            raise BadTag(f"an image would have {len(kept)} tags, {MAX_TAGS} at most: remove some first")
        return json.dumps(kept, ensure_ascii=False) if kept else None

    def column(self, texts: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return N rows' tags after the change.

        Args:
            texts: N strings or missing values, as stored.

        Raises:
            BadTag: an image would have too many.
        """
        plain = pa.array(texts.to_pylist(), pa.string()).dictionary_encode()
        before = [*plain.dictionary.to_pylist(), None]
        after = pa.array([self.applied(text) for text in before], pa.string())
        return after.take(pa.array(np.asarray(plain.indices.fill_null(len(before) - 1))))


def _cleaned(tag: str) -> str:
    tag = tag.encode("utf-8", "replace").decode().strip()
    if not 0 < len(tag) <= MAX_TAG_LENGTH or not tag.isprintable():
        raise BadTag(f"a tag has 1 to {MAX_TAG_LENGTH} printable characters: give another one")
    return tag

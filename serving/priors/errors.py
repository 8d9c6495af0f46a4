"""Errors of filters that a store cannot be narrowed by."""

from __future__ import annotations

from storage.card import Card
from storage.errors import PlacerayError
from storage.search.row_filter import RowFilter

__all__ = ["TagsNotKept", "require_tags"]

WITH_TAGS = 3  # store format


class TagsNotKept(PlacerayError):
    """A filter asks for tags, and the store has a format that keeps none."""

    reason = "tags_not_kept"
    exit_code = 5
    http_status = 409


def require_tags(card: Card | None, within: RowFilter | None) -> None:
    """Check that a store keeps tags where a filter asks for them.

    Args:
        card: Of the store; None: not known.
        within: The filter, or None.

    Raises:
        TagsNotKept: it does not.
    """
    if within is None or card is None or "tags" not in within.columns:
        return
    if card.format_version < WITH_TAGS:
        raise TagsNotKept(
            f"the store has format {card.format_version}, which keeps no tags: run placeray upgrade on it, "
            "or leave the tag out"
        )

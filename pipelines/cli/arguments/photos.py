"""Flags of reading photos: --max-megapixels, --follow-links, --max-rejected."""

from __future__ import annotations

import argparse

from models.photo_limits import MAX_MEGAPIXELS, MEGAPIXELS_BOUND, MEGAPIXELS_HELP
from pipelines import defaults
from pipelines.cli.flags import add_flag

__all__ = ["add_follow_links", "add_max_rejected", "add_photos"]


def add_photos(parser: argparse._ActionsContainer) -> None:
    """Add --max-megapixels."""
    help = f"{MEGAPIXELS_HELP}; default: {MAX_MEGAPIXELS:g}"
    add_flag(parser, "max_megapixels", float, help, gt=0, le=MEGAPIXELS_BOUND)


def add_follow_links(parser: argparse._ActionsContainer) -> None:
    """Add --follow-links."""
    help = "follow symbolic links that lead out of the source; those inside it are always followed"
    add_flag(parser, "follow_links", bool, help)


def add_max_rejected(parser: argparse.ArgumentParser) -> None:
    """Add --max-rejected."""
    help = "exit with code 3 above this share of rejected images"
    add_flag(parser, "max_rejected", float, help, default=defaults.MAX_REJECTED, ge=0, le=64)

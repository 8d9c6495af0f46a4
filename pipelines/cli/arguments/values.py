"""Values and flags of several verbs: ranges of numbers, --quiet, the address of a store."""

from __future__ import annotations

import argparse

from pipelines.cli.flags import add_flag

__all__ = ["STORE_HELP", "add_quiet", "count_range"]

STORE_HELP = "folder of the store, or s3://bucket/prefix, gs://... or az://..."


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add --quiet."""
    add_flag(parser, "quiet", bool, "show no progress on stderr")


def count_range(text: str) -> tuple[int, int]:
    """Return the bounds of N or MIN..MAX, at least 1 each."""
    low, _, high = text.partition("..")
    span = int(low), int(high or low)
    if min(span) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return span

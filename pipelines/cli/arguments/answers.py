"""Flags of how answers are made and judged: --candidates, --no-rerank, --rerank, --threshold-m, --split."""

from __future__ import annotations

import argparse
from typing import Literal

from pipelines import defaults
from pipelines.cli.flags import add_flag, add_settings
from serving.defaults import CANDIDATES, LEARNED_CANDIDATES
from serving.matching_options import OPTIONS as MATCHING_OPTIONS
from serving.matching_options import Matching

__all__ = [
    "CANDIDATES_HELP",
    "SPLITS",
    "add_candidates",
    "add_matching",
    "add_rerank",
    "add_split",
    "add_threshold",
]

CANDIDATES_HELP = (
    f"hits that are re-ranked; 0: none; default: {LEARNED_CANDIDATES} where the store has learned its "
    f"descriptors, else {CANDIDATES}"
)

SPLITS = ("train", "val", "test")


def add_candidates(parser: argparse._ActionsContainer) -> None:
    """Add --candidates and --no-rerank."""
    add_flag(parser, "candidates", int, CANDIDATES_HELP, ge=0)
    add_flag(parser, "no_rerank", bool, "rank by global descriptor only")


def add_rerank(parser: argparse._ActionsContainer) -> None:
    """Add --rerank."""
    help = "auto: where calibration found that it helps; never: as --no-rerank; default: always"
    add_flag(parser, "rerank", Literal["always", "auto", "never"], help)


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """Add --threshold-m."""
    help = "distance in metres up to which a result is correct"
    add_flag(parser, "threshold_m", float, help, default=defaults.THRESHOLD_M, ge=0)


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add --split."""
    parser.add_argument("--split", default=defaults.SPLIT, choices=SPLITS, help="split; default: %(default)s")


def add_matching(parser: argparse._ActionsContainer) -> None:
    """Add the flags of how local features are matched."""
    add_settings(parser, Matching, *MATCHING_OPTIONS, aliases=MATCHING_OPTIONS)

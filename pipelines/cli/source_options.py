"""Flags on where photos lie: options of their buckets, and the column of a table that holds them."""

from __future__ import annotations

import argparse

from pipelines.cli.storage_options import pairs_of

__all__ = ["SOURCE_HELP", "add_source_options", "source_options_of"]

SOURCE_HELP = (
    "folder or prefix of a bucket (s3://, gs://, az://), listing (.csv, .parquet), .tar shards, .lance, "
    "or data set"
)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--source-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the buckets with the photos, such as endpoint or region; credentials come from the "
        "environment",
    )
    parser.add_argument(
        "--photo-column",
        metavar="NAME",
        help="column of a Parquet file or Lance data set that holds the photos; default: found by contents",
    )


def source_options_of(args: argparse.Namespace) -> dict[str, str]:
    """Return the options of the buckets that photos lie in.

    Raises:
        UsageError: an option has no value.
    """
    return pairs_of(args.source_option, "--source-option")

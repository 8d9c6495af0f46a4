"""Flags on where photos lie: options of their buckets, and the column of a table that holds them."""

from __future__ import annotations

import argparse
from urllib.parse import parse_qsl

from pipelines.cli.storage_options import pairs_of
from storage.objects.address import is_bucket_uri, options_for

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
        SecretInOptions: an option, or one in the address of the source, is a secret, which is not repeated.
        UnknownStorageOption: there is no such option.
        UsageError: an option has no value.
    """
    options = pairs_of(args.source_option, "--source-option")
    is_bucket = is_bucket_uri(args.source)
    scheme = args.source.partition("://")[0] if is_bucket else "s3"
    in_address = parse_qsl(args.source.partition("?")[2], keep_blank_values=True) if is_bucket else []
    options_for(scheme, {**options, **dict(in_address)})
    return options

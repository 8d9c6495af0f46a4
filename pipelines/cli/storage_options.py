"""Options of stores in buckets: flags, which join the address that every part of a job is given."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from pipelines.cli.options import UsageError
from storage.objects.address import is_bucket_uri, with_options

__all__ = ["add_storage_options", "join_storage_options", "pairs_of"]

_URIS = ("store", "from_store", "to_store")


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of a bucket, such as endpoint or region; credentials come from the environment",
    )
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="folder on local disk for features read from a bucket; default: the user's cache folder",
    )


def join_storage_options(args: argparse.Namespace) -> None:
    """Let the addresses of stores carry the options of `--storage-option` and `--cache-dir`.

    Raises:
        SecretInOptions: an option is a secret; its value is not repeated.
        UnknownStorageOption: there is no such option, or the store is a folder.
        UsageError: an option has no value.
    """
    options = pairs_of(getattr(args, "storage_option", ()), "--storage-option")
    uris = [name for name in _URIS if getattr(args, name, None)]
    if options and not any(is_bucket_uri(getattr(args, name)) for name in uris):
        for name in uris or ("store",):
            with_options(getattr(args, name, None) or "", options)
        raise UsageError("--storage-option goes with a store in a bucket: give --store s3://bucket/prefix")
    if getattr(args, "cache_dir", None):
        options["cache_dir"] = args.cache_dir
    for name in uris:
        if is_bucket_uri(getattr(args, name)):
            setattr(args, name, with_options(getattr(args, name), options))


def pairs_of(texts: Iterable[str], flag: str) -> dict[str, str]:
    """Return options given as KEY=VALUE.

    Raises:
        UsageError: one has no value.
    """
    pairs = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in pairs):
        raise UsageError(f"{flag} is KEY=VALUE, such as endpoint=https://storage.example.com")
    return {name: value for name, _, value in pairs}

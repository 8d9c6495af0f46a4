"""The arguments of verbs that care for a store: verify, compact, relearn, copy."""

from __future__ import annotations

import argparse
from functools import partial

from pipelines import defaults
from pipelines.cli.arguments.answers import add_split, add_threshold
from pipelines.cli.arguments.model import MODEL_HELP, WEIGHTS_HELP
from pipelines.cli.arguments.values import STORE_HELP, add_quiet
from pipelines.cli.flags import add_flag
from pipelines.cli.storage_options import add_storage_options

__all__ = ["add_build_index", "add_compact", "add_copy", "add_delete", "add_relearn", "add_verify"]


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Flags of `storage.care.verify`."""
    add_flag(parser, "repair", bool, "remove damaged rows and list them")


def add_compact(parser: argparse.ArgumentParser) -> None:
    """Flags of `storage.care.compaction`."""
    flag = partial(add_flag, parser)
    help = "remove unused feature files older than this; younger ones may belong to a script that is running"
    flag("min_age", float, help, default=defaults.LEFTOVER_AGE_S, metavar="S", ge=0)
    help = "old versions that were the newest within so many seconds stay, beside those with a tag"
    flag("keep_versions", float, help, default=defaults.KEEP_VERSIONS_S, metavar="S", ge=0)
    flag("dry_run", bool, "only show what would be removed")


def add_delete(parser: argparse.ArgumentParser) -> None:
    """Flags of `storage.care.forgetting`."""
    parser.add_argument("image_id", nargs="+", metavar="IMAGE_ID")
    help = "remove them from old versions, tags and files too; untagged old versions go"
    add_flag(parser, "forget", bool, help)


def add_relearn(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.cli.store.run_relearn`."""
    flag = partial(add_flag, parser)
    flag("use", str, "aggregation of this file instead of a learned one", metavar="FILE")
    flag("dataset", str, "data set of the store, to measure recall before and after", metavar="DATASET")
    add_split(parser)
    flag("model", str, f"{MODEL_HELP}, for --dataset; default: the store's")
    flag("weights", str, WEIGHTS_HELP, metavar="FILE.safetensors")
    add_threshold(parser)
    add_quiet(parser)


def add_build_index(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.vector_index`."""
    help = "build it anew in parts by so many workers of Ray, then check it; default: in this process"
    add_flag(parser, "workers", int | None, help, metavar="N", ge=1)
    add_quiet(parser)


def add_copy(parser: argparse.ArgumentParser) -> None:
    """Flags of `storage.care.copying`."""
    parser.add_argument("from_store", metavar="SRC", help=STORE_HELP)
    help = "where to: a place without a store, or with a part of a copy"
    parser.add_argument("to_store", metavar="DST", help=help)
    add_storage_options(parser)
    add_quiet(parser)

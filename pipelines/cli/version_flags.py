"""Arguments of the verbs about versions of a store."""

from __future__ import annotations

import argparse

from pipelines.cli.flags import add_flag

__all__ = ["add_rollback_arguments", "add_tag_version_arguments"]

_WHICH = "number of a version that placeray history lists, or a tag"


def add_rollback_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollback`."""
    parser.add_argument("--to", required=True, metavar="VERSION|TAG", help=_WHICH)


def add_tag_version_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tag-version`."""
    parser.add_argument("name", metavar="TAG", help="a name; one that is there moves")
    add_flag(parser, "version", str, f"{_WHICH}; default: the newest", metavar="VERSION|TAG")
    add_flag(parser, "remove", bool, "remove the tag")

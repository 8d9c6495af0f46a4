"""The arguments of verbs that answer for photos: query, track, embed."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Literal

from pipelines.cli.arguments.answers import add_candidates, add_matching, add_rerank
from pipelines.cli.arguments.model import add_aggregation, add_execution, add_image_size, add_model
from pipelines.cli.arguments.photos import add_max_rejected, add_photos
from pipelines.cli.arguments.values import STORE_HELP, add_quiet
from pipelines.cli.flags import add_flag
from pipelines.cli.prior_flags import add_filter_flags, add_prior_flag
from pipelines.cli.storage_options import add_storage_options
from pipelines.cli.track import add_drive_arguments
from serving.defaults import TOP_K

__all__ = ["add_embed", "add_query", "add_track"]


def add_query(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.query`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="path of a photo")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--store", metavar="URI", help=STORE_HELP)
    add_storage_options(parser)
    where.add_argument("--url", metavar="URL", help="running service; its token is read from PLACERAY_TOKEN")
    flag = partial(add_flag, parser)
    add_model(parser)
    add_aggregation(parser)
    flag("top_k", int, "places in the result", default=TOP_K, ge=1)
    add_candidates(parser)
    add_rerank(parser)
    help = "largest share of wrong answers among those called known; default: that of the calibration"
    flag("max_wrong", float, help, metavar="SHARE", gt=0, lt=1)
    help = "what is printed; default: table, or json with --json"
    flag("format", Literal["table", "json", "geojson"], help)
    group = parser.add_argument_group("what is already known")
    add_filter_flags(group)
    add_prior_flag(group)
    add_photos(parser)
    add_execution(parser)
    add_matching(parser)
    add_max_rejected(parser)


def add_track(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.tracks`."""
    add_drive_arguments(parser)
    add_model(parser)
    add_aggregation(parser)
    add_candidates(parser)
    add_rerank(parser)
    add_photos(parser)
    add_execution(parser)
    add_matching(parser)
    add_max_rejected(parser)
    add_quiet(parser)


def add_embed(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.embed`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="path of an image")
    add_model(parser)
    add_flag(parser, "store", str, "store whose model and input size are used", metavar="URI")
    add_storage_options(parser)
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="file to write")
    add_aggregation(parser)
    add_photos(parser)
    add_execution(parser)
    add_image_size(parser)
    add_max_rejected(parser)

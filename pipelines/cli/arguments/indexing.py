"""The arguments of verbs that index photos: demo, index, plan."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Literal

from models.names import DEFAULT_MODEL
from pipelines import defaults
from pipelines.cli.arguments.model import (
    add_aggregation,
    add_execution,
    add_features,
    add_image_size,
    add_model,
)
from pipelines.cli.arguments.photos import add_follow_links, add_max_rejected, add_photos
from pipelines.cli.arguments.values import add_quiet
from pipelines.cli.flags import add_flag
from pipelines.cli.planning import add_trial_arguments
from pipelines.cli.source_options import SOURCE_HELP, add_source_options
from pipelines.cli.storage_options import add_storage_options
from pipelines.placement import parse_labels, parse_resources

__all__ = ["add_demo", "add_index", "add_placement", "add_plan"]


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.demo`."""
    flag = partial(add_flag, parser)
    flag("out", str, "folder for city, store and report", default=defaults.DEMO_OUT, metavar="DIR")
    flag("seed", int, "seed of the generated city", default=0)
    flag("database", int, "number of database images", default=defaults.DEMO_DATABASE, ge=1)
    flag("queries", int, "number of query photos", default=defaults.DEMO_QUERIES, ge=1)
    flag("hard", bool, "repeating facades, rain, glare, scaffolding, views turned by up to 60 degrees")
    help = "draw the frames of a drive through the city too, in this light and weather, for placeray track"
    flag("drive", Literal["day", "night", "snow", "overcast", "rain", "glare"], help)
    add_quiet(parser)


def add_index(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.indexing.job.index`."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    add_source_options(parser)
    flag = partial(add_flag, parser)
    add_model(parser, f"the store's, or {DEFAULT_MODEL} for a new one")
    add_features(parser)
    add_aggregation(parser)
    flag("root", str, "folder that the paths of a listing are relative to; default: its own", metavar="DIR")
    flag("id_prefix", str, "prefix of every image id", default="", metavar="TEXT")
    help = "tag of every image of the source; may be given several times"
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help=help)
    flag("batch_size", int, "images per forward pass", default=defaults.BATCH_SIZE, ge=1)
    flag("extractors", int, "actors that run the model; default: one per GPU, or up to one per core", ge=1)
    flag("gpus_per_extractor", float, "share of a GPU per actor; default: 1 if there are any", ge=0, le=64)
    flag("cpus", float, "CPU cores that the job takes at most; default: all that are free", ge=1)
    add_placement(parser, "extractor")
    add_placement(parser, "decoder")
    flag("commit_every", int, "images per commit at most", default=defaults.COMMIT_EVERY, ge=1)
    flag("commit_seconds", float, "seconds between commits", default=defaults.COMMIT_SECONDS, gt=0)
    help = "end with exit code 8 after this time without progress; default: wait"
    flag("stall_timeout", float, help, metavar="S", gt=0)
    flag("rejected", str, "list of rejected images; default: <store>/rejected.csv", metavar="FILE")
    flag("scaled_decode", bool, "decode large JPEGs at a reduced size: faster, nearly the same results")
    add_photos(parser)
    add_follow_links(parser)
    flag(
        "moved_from",
        str,
        "what SOURCE was before it moved; the rows of that become rows of SOURCE",
        metavar="OLD",
    )
    flag("prune", bool, "remove the rows of photos that SOURCE no longer has")
    share = "with --prune: change nothing if more than this share of the source's images vanished"
    flag("prune_share", float, share, default=defaults.PRUNE_SHARE, ge=0, le=1)
    flag("trace", str, "append the timings of each stage and batch to this file", metavar="FILE")
    add_execution(parser)
    add_image_size(parser)
    add_max_rejected(parser)
    add_quiet(parser)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.plan.job`, and those of `index` that change its speed or size."""
    add_trial_arguments(parser)
    add_storage_options(parser)
    add_model(parser, f"the store's, or {DEFAULT_MODEL}")
    add_features(parser)
    add_aggregation(parser)
    add_image_size(parser)
    add_flag(parser, "scaled_decode", bool, "as of index")
    add_execution(parser)
    add_quiet(parser)


def add_placement(parser: argparse.ArgumentParser, role: str) -> None:
    """Add flags for where the actors of a role run."""
    parser.add_argument(
        f"--{role}-resources",
        type=parse_resources,
        default={},
        metavar="NAME=N,...",
        help=f"custom resources of Ray that each {role} takes",
    )
    parser.add_argument(
        f"--{role}-labels",
        type=parse_labels,
        default={},
        metavar="KEY=VALUE,...",
        help=f"labels of the nodes that the {role}s run on",
    )

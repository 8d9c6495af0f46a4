"""The arguments of verbs that measure: evaluate, compare, calibrate, tune, atlas, models."""

from __future__ import annotations

import argparse
from functools import partial

from models.names import DEFAULT_MODEL
from pipelines import defaults
from pipelines.cli.arguments.answers import add_candidates, add_matching, add_rerank, add_split, add_threshold
from pipelines.cli.arguments.model import (
    MODEL_HELP,
    add_aggregation,
    add_execution,
    add_features,
    add_image_size,
    add_model,
)
from pipelines.cli.arguments.photos import add_follow_links, add_photos
from pipelines.cli.arguments.values import add_quiet
from pipelines.cli.flags import add_flag
from pipelines.cli.storage_options import add_storage_options
from storage.search.methods import SearchMethod

__all__ = ["add_atlas", "add_calibrate", "add_compare", "add_evaluate", "add_models", "add_tune"]


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.evaluation.job.evaluate`."""
    parser.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="folder of the data set; or --database and --queries"
    )
    flag = partial(add_flag, parser)
    flag("database", str, "folder or listing of the database, in DATASET or elsewhere", metavar="PATH")
    flag("queries", str, "folder or listing of the queries, in DATASET or elsewhere", metavar="PATH")
    flag("root", str, "folder that the paths of listings are relative to; default: their own", metavar="DIR")
    add_model(parser, f"the store's, or {DEFAULT_MODEL} for a new one")
    flag(
        "store",
        str,
        "store to evaluate, where missing database images are indexed; default: a temporary one",
        metavar="URI",
    )
    add_storage_options(parser)
    add_split(parser)
    add_candidates(parser)
    add_rerank(parser)
    add_threshold(parser)
    help = "what a published figure is of: msls-val-740, pitts30k, nordland-27592, ..., metres:25, frames:10"
    flag("protocol", str, f"{help}, or a FILE.toml", metavar="NAME")
    flag(
        "keys",
        str,
        "keys of the queries to score, as text, .npy array or subtask_index.csv",
        metavar="PATH",
    )
    add_execution(parser)
    add_matching(parser)
    add_photos(parser)
    add_follow_links(parser)
    flag("url", str, "running service of --store that answers; its token is read from PLACERAY_TOKEN")
    flag("fresh", bool, "answer every query again, also those of an earlier run with the same settings")
    flag("report", str, "write index.html and evaluation.json to this folder", metavar="DIR")
    flag(
        "predictions", str, "write the answers to each query to this folder, in several forms", metavar="DIR"
    )
    flag("descriptors", bool, "with --predictions: the descriptors of queries and database as .npy too")
    add_features(parser)
    add_aggregation(parser)
    add_image_size(parser)
    add_quiet(parser)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.evaluation.comparison`."""
    help = "folder that evaluate wrote by --predictions or --report"
    parser.add_argument("first", metavar="FIRST", help=help)
    parser.add_argument("second", metavar="SECOND", help="the other one")
    add_flag(parser, "report", str, "write comparison.html and comparison.json there", metavar="DIR")


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.calibration.job.calibrate`."""
    parser.add_argument(
        "dataset", metavar="DATASET", help="data set of the store; its queries are the labelled photos"
    )
    flag = partial(add_flag, parser)
    help = "share of wrong answers among those called known that is to be promised"
    flag("max_wrong", float, help, default=defaults.MAX_WRONG, metavar="SHARE", gt=0, lt=1)
    flag("elsewhere", str, "folder or listing of photos that were taken elsewhere", metavar="PATH")
    add_split(parser)
    add_model(parser)
    add_candidates(parser)
    add_threshold(parser)
    add_execution(parser)
    add_matching(parser)
    help = "how candidates are searched for, as by the service that is to answer; default: as of query"
    flag("method", SearchMethod, help)
    add_quiet(parser)


def add_tune(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.tuning.job.tune`."""
    parser.add_argument("dataset", metavar="DATASET", help="data set of the store, with labelled queries")
    flag = partial(add_flag, parser)
    help = "least share of the best recall at 1, such as 0.99; the fastest setting that has it is chosen"
    flag("target_recall", float, help, gt=0, le=1)
    help = "longest median time per query; the setting with the best recall is chosen"
    flag("target_ms", float, help, gt=0)
    flag(
        "out", str, "YAML file for serve --settings, with the keys of args: in a Serve config", metavar="FILE"
    )
    add_split(parser)
    flag("protocol", str, "see evaluate", default="metres:25", metavar="NAME")
    flag("photos", int, "queries that are used at most", default=200, ge=1)
    flag("model", str, "name or weights file; default: the store's")
    add_execution(parser)
    add_quiet(parser)


def add_atlas(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.atlas.job.make_atlas`."""
    help = "folder for index.html, atlas.geojson, prune.csv and atlas.json"
    parser.add_argument("--out", required=True, metavar="DIR", help=help)
    flag = partial(add_flag, parser)
    flag(
        "listing",
        str,
        "where photos should be: a table of positions, a listing or a folder, to find holes",
        metavar="PATH",
    )
    flag("root", str, "folder that the paths of the listing are relative to; default: its own", metavar="DIR")
    help = "a listed position is covered by an image within this distance"
    flag("radius_m", float, help, default=defaults.THRESHOLD_M, gt=0)
    flag("near_m", float, "largest distance of near-duplicates", default=5.0, ge=0)
    flag("far_m", float, "least distance of places that look alike", default=100.0, gt=0)
    help = "least similarity of near-duplicates; default: that of one in 1,000 similar pairs of far places"
    flag("duplicate_similarity", float, help, ge=-1, le=1)


def add_models(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.model_list`."""
    help = f"{MODEL_HELP}; default: all"
    parser.add_argument("--model", action="append", default=[], metavar="MODEL", help=help)
    add_flag(parser, "bench", bool, "measure milliseconds per photo of those that can be loaded")
    add_execution(parser)

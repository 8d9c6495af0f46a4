"""The arguments of every verb. Imports no heavy libraries, so that --help is fast."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Literal

from models.names import DEFAULT_MODEL
from models.photo_limits import MAX_MEGAPIXELS, MEGAPIXELS_BOUND, MEGAPIXELS_HELP
from models.runtime.execution import OPTIONS as EXECUTION_OPTIONS
from models.runtime.execution import Execution
from models.training.options import Augmentation
from pipelines import defaults
from pipelines.cli.flags import add_flag, add_settings
from pipelines.cli.locating import add_locate_arguments
from pipelines.cli.planning import add_plan
from pipelines.cli.prior_flags import add_filter_flags, add_prior_flag
from pipelines.cli.source_options import SOURCE_HELP, add_source_options
from pipelines.cli.storage_options import add_storage_options
from pipelines.cli.tagging import add_tag_arguments
from pipelines.cli.track import add_track
from pipelines.cli.version_flags import add_rollback_arguments, add_tag_version_arguments
from pipelines.placement import parse_labels, parse_resources
from pipelines.ray_session import RULE
from pipelines.training.settings import TrainingSettings
from serving.defaults import CANDIDATES, LEARNED_CANDIDATES, TOP_K
from serving.matching_options import OPTIONS as MATCHING_OPTIONS
from serving.matching_options import Matching
from serving.settings import Scale, ServeSettings
from storage.card import FEATURE_ENCODINGS, NO_FEATURES
from storage.version import __version__

__all__ = ["build_parser"]

SPLITS = ("train", "val", "test")
_CANDIDATES_HELP = (
    f"hits that are re-ranked; 0: none; default: {LEARNED_CANDIDATES} where the store has learned its "
    f"descriptors, else {CANDIDATES}"
)
STORE_HELP = "folder of the store, or s3://bucket/prefix, gs://... or az://..."
ROLES = ("ingress", "extractor", "searcher", "reranker")

_MODEL = "name, weights file, timm:NAME or model file (.toml)"
_WEIGHTS = "weights of a timm:NAME or of a model file, in place of its own"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = argparse.ArgumentParser(
        prog="placeray", description="Where was this photo taken? Visual place recognition over a whole city."
    )
    parser.add_argument("--version", action="version", version=f"placeray {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, help: str, *, store: bool = False, ray: bool = False) -> argparse.ArgumentParser:
        description = help[0].upper() + help[1:] + "."
        sub = verbs.add_parser(name, help=help, description=description, epilog=RULE if ray else None)
        sub.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        if store:
            sub.add_argument("--store", required=True, metavar="URI", help=STORE_HELP)
            add_storage_options(sub)
        return sub

    _add_demo(verb("demo", "index, query and evaluate a generated city, and write a report page", ray=True))
    _add_index(verb("index", "index the images of a folder, listing or data set", store=True, ray=True))
    _add_plan(verb("plan", "estimate what an index run takes and costs, from a short trial"))
    _add_query(verb("query", "rank the places where photos may have been taken"))
    _add_track(verb("track", "follow a drive: where each of its frames was taken", store=True))
    _add_serve(verb("serve", "answer queries over HTTP until stopped", store=True, ray=True))
    evaluate = "measure Recall@K on a data set, indexing what the store lacks of its database"
    _add_evaluate(verb("evaluate", evaluate, ray=True))
    compare = verb("compare", "compare two evaluations of the same queries, photo by photo")
    compare.add_argument(
        "first", metavar="FIRST", help="folder that evaluate wrote by --predictions or --report"
    )
    compare.add_argument("second", metavar="SECOND", help="the other one")
    add_flag(compare, "report", str, "write comparison.html and comparison.json there", metavar="DIR")
    atlas = "find holes, near-duplicates and places that look alike in a store"
    _add_atlas(verb("atlas", atlas, store=True))
    tune = "choose the settings of a service on labelled photos"
    _add_tune(verb("tune", tune, store=True))
    _add_export(verb("export", "write descriptors of a store (.npy, .parquet) or a model (.onnx)"))
    _add_finetune(verb("finetune", "train the adapters of a model on your own city", ray=True))
    _add_embed(verb("embed", "write descriptors and local features of images to a .npz file"))
    weights = verb("import-weights", "convert a published SelaVPR or SelaVPR++ checkpoint to safetensors")
    weights.add_argument("checkpoint", metavar="CHECKPOINT.pth")
    weights.add_argument("--out", required=True, metavar="FILE.safetensors")
    add_flag(weights, "heads", int, "attention heads, if it is not a DINOv2 size", ge=1)
    help = "keep the trunk of SelaVPR++ in the file even where timm's hub has it; asks no hub"
    add_flag(weights, "whole", bool, help)
    listed = verb("models", "list the models: what each needs, makes, and takes on this machine")
    listed.add_argument(
        "--model", action="append", default=[], metavar="MODEL", help=f"{_MODEL}; default: all"
    )
    add_flag(listed, "bench", bool, "measure milliseconds per photo of those that can be loaded")
    add_settings(listed, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    verb("info", "describe a store", store=True)
    verify = verb("verify", "check every row, descriptor and feature of a store", store=True)
    add_flag(verify, "repair", bool, "remove damaged rows and list them")
    compact = verb("compact", "merge small files and remove files that are no longer used", store=True)
    help = "remove unused feature files older than this; younger ones may belong to a script that is running"
    add_flag(compact, "min_age", float, help, default=defaults.LEFTOVER_AGE_S, metavar="S", ge=0)
    help = "old versions that were the newest within so many seconds stay, beside those with a tag"
    add_flag(compact, "keep_versions", float, help, default=defaults.KEEP_VERSIONS_S, metavar="S", ge=0)
    add_flag(compact, "dry_run", bool, "only show what would be removed")
    delete = verb("delete", "delete images from a store", store=True)
    delete.add_argument("image_id", nargs="+", metavar="IMAGE_ID")
    help = "remove them from old versions, tags and files too; untagged old versions go"
    add_flag(delete, "forget", bool, help)
    verb("history", "list the versions of a store that can be gone back to", store=True)
    add_tag_version_arguments(verb("tag-version", "name a version, which compact then keeps", store=True))
    help = "make a new version with the content of an old one"
    add_rollback_arguments(verb("rollback", help, store=True))
    _add_relearn(
        verb("relearn", "learn a store's descriptors again from its stored local features", store=True)
    )
    calibrate = "measure on labelled photos how probable answers are, and when they may be called known"
    _add_calibrate(verb("calibrate", calibrate, store=True))
    help = "build the index on disk for stores that do not fit into memory"
    _add_build_index(verb("build-index", help, store=True, ray=True))
    help = "locate photos that have no position, review the places, write them into the photos"
    add_locate_arguments(verb("locate", help))
    help = "add or remove tags of stored images, or count them"
    add_tag_arguments(verb("tag", help, store=True))
    copy = verb("copy", "copy a store, between folders and buckets")
    copy.add_argument("from_store", metavar="SRC", help=STORE_HELP)
    copy.add_argument(
        "to_store", metavar="DST", help="where to: a place without a store, or with a part of a copy"
    )
    add_storage_options(copy)
    _add_quiet(copy)
    verb("upgrade", "bring a store of an older format to the newest, for columns it lacks", store=True)
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    flag = partial(add_flag, parser)
    flag("out", str, "folder for city, store and report", default=defaults.DEMO_OUT, metavar="DIR")
    flag("seed", int, "seed of the generated city", default=0)
    flag("database", int, "number of database images", default=defaults.DEMO_DATABASE, ge=1)
    flag("queries", int, "number of query photos", default=defaults.DEMO_QUERIES, ge=1)
    flag("hard", bool, "repeating facades, rain, glare, scaffolding, views turned by up to 60 degrees")
    help = "draw the frames of a drive through the city too, in this light and weather, for placeray track"
    flag("drive", Literal["day", "night", "snow", "overcast", "rain", "glare"], help)
    _add_quiet(parser)


def _add_index(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.indexing.job.index`."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    add_source_options(parser)
    flag = partial(add_flag, parser)
    flag("model", str, f"{_MODEL}; default: the store's, or {DEFAULT_MODEL} for a new one")
    flag("weights", str, _WEIGHTS, metavar="FILE.safetensors")
    _add_features(parser)
    _add_aggregation(parser)
    flag("root", str, "folder that the paths of a listing are relative to; default: its own", metavar="DIR")
    flag("id_prefix", str, "prefix of every image id", default="", metavar="TEXT")
    help = "tag of every image of the source; may be given several times"
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help=help)
    flag("batch_size", int, "images per forward pass", default=defaults.BATCH_SIZE, ge=1)
    flag("extractors", int, "actors that run the model; default: one per GPU, or up to one per core", ge=1)
    flag("gpus_per_extractor", float, "share of a GPU per actor; default: 1 if there are any", ge=0, le=64)
    flag("cpus", float, "CPU cores that the job takes at most; default: all that are free", ge=1)
    _add_placement(parser, "extractor")
    _add_placement(parser, "decoder")
    flag("commit_every", int, "images per commit at most", default=defaults.COMMIT_EVERY, ge=1)
    flag("commit_seconds", float, "seconds between commits", default=defaults.COMMIT_SECONDS, gt=0)
    help = "end with exit code 8 after this time without progress; default: wait"
    flag("stall_timeout", float, help, metavar="S", gt=0)
    flag("rejected", str, "list of rejected images; default: <store>/rejected.csv", metavar="FILE")
    flag("scaled_decode", bool, "decode large JPEGs at a reduced size: faster, nearly the same results")
    _add_photos(parser)
    _add_follow_links(parser)
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
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    _add_image_size(parser)
    _add_max_rejected(parser)
    _add_quiet(parser)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.plan.job`, and those of `index` that change its speed or size."""
    add_plan(parser)
    add_storage_options(parser)
    add_flag(parser, "model", str, f"{_MODEL}; default: the store's, or {DEFAULT_MODEL}")
    add_flag(parser, "weights", str, _WEIGHTS, metavar="FILE.safetensors")
    _add_features(parser)
    _add_aggregation(parser)
    _add_image_size(parser)
    add_flag(parser, "scaled_decode", bool, "as of index")
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    _add_quiet(parser)


def _add_query(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.query`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="path of a photo")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--store", metavar="URI", help=STORE_HELP)
    add_storage_options(parser)
    where.add_argument("--url", metavar="URL", help="running service; its token is read from PLACERAY_TOKEN")
    flag = partial(add_flag, parser)
    flag("model", str, f"{_MODEL}; default: the store's")
    flag("weights", str, _WEIGHTS, metavar="FILE.safetensors")
    _add_aggregation(parser)
    flag("top_k", int, "places in the result", default=TOP_K, ge=1)
    flag("candidates", int, _CANDIDATES_HELP, ge=0)
    flag("no_rerank", bool, "rank by global descriptor only")
    _add_rerank(parser)
    help = "largest share of wrong answers among those called known; default: that of the calibration"
    flag("max_wrong", float, help, metavar="SHARE", gt=0, lt=1)
    help = "what is printed; default: table, or json with --json"
    flag("format", Literal["table", "json", "geojson"], help)
    group = parser.add_argument_group("what is already known")
    add_filter_flags(group)
    add_prior_flag(group)
    _add_photos(parser)
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    add_settings(parser, Matching, *MATCHING_OPTIONS, aliases=MATCHING_OPTIONS)
    _add_max_rejected(parser)


def _add_track(parser: argparse.ArgumentParser) -> None:
    add_track(parser)
    flag = partial(add_flag, parser)
    flag("model", str, f"{_MODEL}; default: the store's")
    flag("weights", str, _WEIGHTS, metavar="FILE.safetensors")
    _add_aggregation(parser)
    flag("candidates", int, _CANDIDATES_HELP, ge=0)
    flag("no_rerank", bool, "rank by global descriptor only")
    _add_rerank(parser)
    _add_photos(parser)
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    add_settings(parser, Matching, *MATCHING_OPTIONS, aliases=MATCHING_OPTIONS)
    _add_max_rejected(parser)
    _add_quiet(parser)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.serve` and of its settings."""
    add_flag(parser, "host", str, "address; others than loopback need a token", default=defaults.HOST)
    add_flag(parser, "port", int, "port; 0: any free one", default=defaults.PORT)
    setting = partial(add_settings, parser, ServeSettings)
    help = "YAML file with any of these settings, as placeray tune writes; flags win"
    add_flag(parser, "settings", str, help, metavar="PATH")
    setting("at", "model", "topology")
    add_flag(parser, "weights", str, _WEIGHTS, metavar="FILE.safetensors")
    _add_aggregation(parser)
    setting("shards", "method", ge=1)
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    add_settings(parser, Matching, *MATCHING_OPTIONS, aliases=MATCHING_OPTIONS)
    setting("memory_gib", "refresh_s", "cache_mib", "max_batch", "max_queue", "max_in_flight")
    setting("candidates", "max_candidates")
    setting("request_timeout_s", "receive_timeout_s", "max_body_mib", "max_megapixels")
    setting("threads", ge=1)
    setting("allowed_hosts", "tiles", "log_file")
    for role in ROLES:
        parser.add_argument(
            f"--{role}-replicas",
            type=_range,
            default=argparse.SUPPRESS,
            metavar="N",
            help=f"number of replicas, or MIN..MAX to scale with the load; default: {Scale().min_replicas}",
        )
    for role in ROLES:
        add_settings(parser, Scale, f"{role}_gpus", aliases={f"{role}_gpus": "num_gpus"})


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.evaluation.job.evaluate`."""
    parser.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="folder of the data set; or --database and --queries"
    )
    flag = partial(add_flag, parser)
    flag("database", str, "folder or listing of the database, in DATASET or elsewhere", metavar="PATH")
    flag("queries", str, "folder or listing of the queries, in DATASET or elsewhere", metavar="PATH")
    flag("root", str, "folder that the paths of listings are relative to; default: their own", metavar="DIR")
    flag("model", str, f"{_MODEL}; default: the store's, or {DEFAULT_MODEL} for a new one")
    flag("weights", str, _WEIGHTS, metavar="FILE.safetensors")
    flag(
        "store",
        str,
        "store to evaluate, where missing database images are indexed; default: a temporary one",
        metavar="URI",
    )
    add_storage_options(parser)
    parser.add_argument("--split", default=defaults.SPLIT, choices=SPLITS, help="split; default: %(default)s")
    flag("candidates", int, _CANDIDATES_HELP, ge=0)
    flag("no_rerank", bool, "rank by global descriptor only")
    _add_rerank(parser)
    _add_threshold(parser)
    help = "what a published figure is of: msls-val-740, pitts30k, nordland-27592, ..., metres:25, frames:10"
    flag("protocol", str, f"{help}, or a FILE.toml", metavar="NAME")
    flag(
        "keys",
        str,
        "keys of the queries to score, as text, .npy array or subtask_index.csv",
        metavar="PATH",
    )
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    add_settings(parser, Matching, *MATCHING_OPTIONS, aliases=MATCHING_OPTIONS)
    _add_photos(parser)
    _add_follow_links(parser)
    flag("url", str, "running service of --store that answers; its token is read from PLACERAY_TOKEN")
    flag("fresh", bool, "answer every query again, also those of an earlier run with the same settings")
    flag("report", str, "write index.html and evaluation.json to this folder", metavar="DIR")
    flag(
        "predictions", str, "write the answers to each query to this folder, in several forms", metavar="DIR"
    )
    flag("descriptors", bool, "with --predictions: the descriptors of queries and database as .npy too")
    _add_features(parser)
    _add_aggregation(parser)
    _add_image_size(parser)
    _add_quiet(parser)


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.training.job.finetune` and of its settings."""
    parser.add_argument("dataset", metavar="DATASET", help="data set with images/train and images/val")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="new weights file")
    flag = partial(add_flag, parser)
    flag("split", str, "split to train on", default=defaults.TRAINING_SPLIT)
    flag("val", str, "data set to validate with; default: the same", metavar="DATASET")
    flag("val_split", str, "split to validate with", default=defaults.VALIDATION_SPLIT)
    parser.add_argument(
        "--workers",
        type=_range,
        default=(1, 1),
        metavar="N",
        help="number of workers, or MIN..MAX to continue with fewer after a loss; default: 1",
    )
    flag("gpus_per_worker", float, "share of a GPU per worker; default: 1 where there are GPUs", ge=0, le=64)
    flag("run", str, "folder for log, checkpoints and report; default: FILE.run", metavar="DIR")
    flag("storage", str, "checkpoints go here, such as s3://...; default: the run's folder", metavar="URI")
    flag("max_failures", int, "failures of workers before training stops", default=defaults.MAX_FAILURES)
    flag("keep_floor", bool, "keep the model's similarity floor instead of choosing it anew")
    setting = partial(add_settings, parser, TrainingSettings)
    setting("model", "epochs", "patience", "queries_per_epoch", "queries_per_round", "sampled", "batch")
    setting("accumulate", "negatives", "mining", "positive_m", "negative_m", "learning_rate", "weight_decay")
    setting("margin", "local_weight", "adapter_stages", "local_head", "codes", "precision", "recompute")
    setting("seed")
    setting("val_queries", "val_candidates", "threshold_m", "threads")
    add_settings(parser, Augmentation, "jitter", "perspective", "crop", "rotation_deg", "flip")
    setting("image_size", "max_megapixels")
    _add_follow_links(parser)
    _add_max_rejected(parser)
    _add_quiet(parser)


def _add_embed(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.embed`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="path of an image")
    add_flag(parser, "model", str, f"{_MODEL}; default: the store's")
    add_flag(parser, "weights", str, _WEIGHTS, metavar="FILE.safetensors")
    add_flag(parser, "store", str, "store whose model and input size are used", metavar="URI")
    add_storage_options(parser)
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="file to write")
    _add_aggregation(parser)
    _add_photos(parser)
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    _add_image_size(parser)
    _add_max_rejected(parser)


def _add_atlas(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.atlas.job.make_atlas`."""
    help = "folder for index.html, atlas.geojson, prune.csv and atlas.json"
    parser.add_argument("--out", required=True, metavar="DIR", help=help)
    flag = partial(add_flag, parser)
    flag("listing", str, "where photos should be: a listing or a folder, to find holes", metavar="PATH")
    flag("root", str, "folder that the paths of the listing are relative to; default: its own", metavar="DIR")
    help = "a listed position is covered by an image within this distance"
    flag("radius_m", float, help, default=defaults.THRESHOLD_M, gt=0)
    flag("near_m", float, "largest distance of near-duplicates", default=5.0, ge=0)
    flag("far_m", float, "least distance of places that look alike", default=100.0, gt=0)
    help = "least similarity of near-duplicates; default: that of one in 1,000 similar pairs of far places"
    flag("duplicate_similarity", float, help, ge=-1, le=1)


def _add_tune(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--split", default=defaults.SPLIT, choices=SPLITS, help="split; default: %(default)s")
    flag("protocol", str, "see evaluate", default="metres:25", metavar="NAME")
    flag("photos", int, "queries that are used at most", default=200, ge=1)
    flag("model", str, "name or weights file; default: the store's")
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    _add_quiet(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.export`."""
    add_flag(parser, "store", str, "store whose descriptors are written, or whose model", metavar="URI")
    add_storage_options(parser)
    add_flag(parser, "model", str, "name or weights file of the model that is written")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write: .npy, .parquet or .onnx")
    _add_image_size(parser)


def _add_relearn(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.cli.store.run_relearn`."""
    flag = partial(add_flag, parser)
    flag("use", str, "aggregation of this file instead of a learned one", metavar="FILE")
    flag("dataset", str, "data set of the store, to measure recall before and after", metavar="DATASET")
    parser.add_argument("--split", default=defaults.SPLIT, choices=SPLITS, help="split; default: %(default)s")
    flag("model", str, f"{_MODEL}, for --dataset; default: the store's")
    flag("weights", str, _WEIGHTS, metavar="FILE.safetensors")
    _add_threshold(parser)
    _add_quiet(parser)


def _add_rerank(parser: argparse.ArgumentParser) -> None:
    help = "auto: where calibration found that it helps; never: as --no-rerank; default: always"
    add_flag(parser, "rerank", Literal["always", "auto", "never"], help)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.calibration.job.calibrate`."""
    parser.add_argument(
        "dataset", metavar="DATASET", help="data set of the store; its queries are the labelled photos"
    )
    flag = partial(add_flag, parser)
    help = "share of wrong answers among those called known that is to be promised"
    flag("max_wrong", float, help, default=defaults.MAX_WRONG, metavar="SHARE", gt=0, lt=1)
    flag("elsewhere", str, "folder or listing of photos that were taken elsewhere", metavar="PATH")
    parser.add_argument("--split", default=defaults.SPLIT, choices=SPLITS, help="split; default: %(default)s")
    flag("model", str, f"{_MODEL}; default: the store's")
    flag("weights", str, _WEIGHTS, metavar="FILE.safetensors")
    flag("candidates", int, _CANDIDATES_HELP, ge=0)
    flag("no_rerank", bool, "rank by global descriptor only")
    _add_threshold(parser)
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)
    add_settings(parser, Matching, *MATCHING_OPTIONS, aliases=MATCHING_OPTIONS)
    _add_quiet(parser)


def _add_aggregation(parser: argparse.ArgumentParser) -> None:
    help = (
        "descriptors of a new store: learned (from its photos), gem (the model's own), or the FILE of an "
        "aggregation; must match an existing store; default: learned, or gem for models with a trained head"
    )
    add_flag(parser, "aggregation", str, help, metavar="learned|gem|FILE")


def _add_image_size(parser: argparse.ArgumentParser) -> None:
    help = (
        "input size of the network in pixels; multiples of 14 for ViTs; default: the store's or the model's"
    )
    add_flag(parser, "image_size", tuple[int, int], help)


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        choices=(*FEATURE_ENCODINGS, NO_FEATURES),
        help="encoding of local features in a new store; smaller ones lose some detail; none: descriptors "
        "alone; default: float16, int4-pca64 for large feature maps, or none for models that need none",
    )


def _add_threshold(parser: argparse.ArgumentParser) -> None:
    help = "distance in metres up to which a result is correct"
    add_flag(parser, "threshold_m", float, help, default=defaults.THRESHOLD_M, ge=0)


def _add_photos(parser: argparse.ArgumentParser) -> None:
    help = f"{MEGAPIXELS_HELP}; default: {MAX_MEGAPIXELS:g}"
    add_flag(parser, "max_megapixels", float, help, gt=0, le=MEGAPIXELS_BOUND)


def _add_follow_links(parser: argparse.ArgumentParser) -> None:
    help = "follow symbolic links that lead out of the source; those inside it are always followed"
    add_flag(parser, "follow_links", bool, help)


def _add_max_rejected(parser: argparse.ArgumentParser) -> None:
    help = "exit with code 3 above this share of rejected images"
    add_flag(parser, "max_rejected", float, help, default=defaults.MAX_REJECTED, ge=0, le=64)


def _add_build_index(parser: argparse.ArgumentParser) -> None:
    help = "build it anew in parts by so many workers of Ray, then check it; default: in this process"
    add_flag(parser, "workers", int | None, help, metavar="N", ge=1)
    _add_quiet(parser)


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "quiet", bool, "show no progress on stderr")


def _add_placement(parser: argparse.ArgumentParser, role: str) -> None:
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


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("..")
    span = int(low), int(high or low)
    if min(span) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return span

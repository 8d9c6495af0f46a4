"""The parser of the command line. Imports no heavy libraries, so that --help is fast."""

from __future__ import annotations

import argparse

from pipelines.cli.arguments.asking import add_embed, add_query, add_track
from pipelines.cli.arguments.indexing import add_demo, add_index, add_plan
from pipelines.cli.arguments.measuring import (
    add_atlas,
    add_calibrate,
    add_compare,
    add_evaluate,
    add_models,
    add_tune,
)
from pipelines.cli.arguments.service import add_serve
from pipelines.cli.arguments.stores import (
    add_build_index,
    add_compact,
    add_copy,
    add_delete,
    add_relearn,
    add_verify,
)
from pipelines.cli.arguments.training import add_export, add_finetune, add_import_weights
from pipelines.cli.arguments.values import STORE_HELP
from pipelines.cli.locating import add_locate_arguments
from pipelines.cli.storage_options import add_storage_options
from pipelines.cli.tagging import add_tag_arguments
from pipelines.cli.version_flags import add_rollback_arguments, add_tag_version_arguments
from pipelines.ray_session import RULE
from storage.version import __version__

__all__ = ["build_parser"]


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

    add_demo(verb("demo", "index, query and evaluate a generated city, and write a report page", ray=True))
    add_index(verb("index", "index the images of a folder, listing or data set", store=True, ray=True))
    add_plan(verb("plan", "estimate what an index run takes and costs, from a short trial"))
    add_query(verb("query", "rank the places where photos may have been taken"))
    add_track(verb("track", "follow a drive: where each of its frames was taken", store=True))
    add_serve(verb("serve", "answer queries over HTTP until stopped", store=True, ray=True))
    evaluate = "measure Recall@K on a data set, indexing what the store lacks of its database"
    add_evaluate(verb("evaluate", evaluate, ray=True))
    compare = "compare two evaluations of the same queries, photo by photo"
    add_compare(verb("compare", compare))
    atlas = "find holes, near-duplicates and places that look alike in a store"
    add_atlas(verb("atlas", atlas, store=True))
    tune = "choose the settings of a service on labelled photos"
    add_tune(verb("tune", tune, store=True))
    add_export(verb("export", "write descriptors of a store (.npy, .parquet) or a model (.onnx)"))
    add_finetune(verb("finetune", "train the adapters of a model on your own city", ray=True))
    add_embed(verb("embed", "write descriptors and local features of images to a .npz file"))
    weights = "convert a published SelaVPR or SelaVPR++ checkpoint to safetensors"
    add_import_weights(verb("import-weights", weights))
    models = "list the models: what each needs, makes, and takes on this machine"
    add_models(verb("models", models))
    verb("info", "describe a store", store=True)
    add_verify(verb("verify", "check every row, descriptor and feature of a store", store=True))
    compact = "merge small files and remove files that are no longer used"
    add_compact(verb("compact", compact, store=True))
    add_delete(verb("delete", "delete images from a store", store=True))
    verb("history", "list the versions of a store that can be gone back to", store=True)
    add_tag_version_arguments(verb("tag-version", "name a version, which compact then keeps", store=True))
    help = "make a new version with the content of an old one"
    add_rollback_arguments(verb("rollback", help, store=True))
    add_relearn(
        verb("relearn", "learn a store's descriptors again from its stored local features", store=True)
    )
    calibrate = "measure on labelled photos how probable answers are, and when they may be called known"
    add_calibrate(verb("calibrate", calibrate, store=True))
    help = "build the index on disk for stores that do not fit into memory"
    add_build_index(verb("build-index", help, store=True, ray=True))
    help = "locate photos that have no position, review the places, write them into the photos"
    add_locate_arguments(verb("locate", help))
    help = "add or remove tags of stored images, or count them"
    add_tag_arguments(verb("tag", help, store=True))
    add_copy(verb("copy", "copy a store, between folders and buckets"))
    verb("upgrade", "bring a store of an older format to the newest, for columns it lacks", store=True)
    return parser

"""The arguments of every verb of the command line."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from models.names import DEFAULT_MODEL
from storage.card import FEATURE_ENCODINGS

__all__ = ["build_parser"]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb; it imports nothing heavy, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        prog="placeray", description="Where was this photo taken? Visual place recognition over a whole city."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str, *, store: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        sub.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        if store:
            sub.add_argument("--store", required=True, metavar="URI", help="folder of the store")
        return sub

    demo = verb("demo", "index, query and evaluate a generated city, and write a report page")
    demo.add_argument("--out", default="placeray-demo", metavar="DIR", help="default: %(default)s")
    demo.add_argument("--seed", type=int, default=0, help="which city")
    demo.add_argument("--database", type=_positive, default=240, metavar="N", help="database images")
    demo.add_argument("--queries", type=_positive, default=80, metavar="N", help="query photos")
    _add_quiet(demo)

    index = verb("index", "index the images of a folder, listing or data set", store=True)
    index.add_argument("source", metavar="SOURCE", help="folder, listing (.csv, .parquet) or data set")
    index.add_argument("--model", metavar="M", help=f"name or file; default: the store's or {DEFAULT_MODEL}")
    index.add_argument(
        "--features",
        choices=FEATURE_ENCODINGS,
        help="how a new store keeps local features; smaller ones lose some detail",
    )
    index.add_argument("--root", metavar="DIR", help="folder that a listing's paths are relative to")
    index.add_argument("--id-prefix", default="", metavar="TEXT", help="put before every image id")
    index.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="images a forward pass")
    index.add_argument("--extractors", type=_positive, metavar="N", help="actors that run the model")
    index.add_argument("--gpus-per-extractor", type=_share, metavar="X", help="share of a GPU for each actor")
    index.add_argument("--commit-every", type=_positive, default=1024, metavar="N", help="images a commit")
    index.add_argument("--rejected", metavar="FILE", help="default: <store>/rejected.csv")
    index.add_argument(
        "--scaled-decode", action="store_true", help="decode large JPEGs smaller: faster, nearly the same"
    )
    index.add_argument("--trace", metavar="FILE", help="append when each stage worked on each batch")
    _add_execution(index)
    _add_image_size(index)
    _add_max_rejected(index)
    _add_quiet(index)

    query = verb("query", "rank the places where photos may have been taken")
    query.add_argument("image", nargs="+", metavar="IMAGE")
    where = query.add_mutually_exclusive_group(required=True)
    where.add_argument("--store", metavar="URI", help="folder of the store")
    where.add_argument("--url", metavar="URL", help="of a running service; its token: PLACERAY_TOKEN")
    query.add_argument("--model", metavar="M", help="name or file; default: the store's")
    query.add_argument("--top-k", type=_positive, default=5, metavar="K", help="places listed")
    query.add_argument("--candidates", type=_positive, default=100, metavar="N", help="hits re-ranked")
    query.add_argument("--no-rerank", action="store_true", help="order by global descriptor alone")
    _add_execution(query)
    _add_matching(query)
    _add_max_rejected(query)

    _add_serve(verb("serve", "answer queries over HTTP until told to stop", store=True))

    evaluate = verb("evaluate", "measure Recall@K on a data set with database/ and queries/")
    evaluate.add_argument("dataset", metavar="DATASET")
    evaluate.add_argument(
        "--model", metavar="M", help=f"name or file; default: the store's or {DEFAULT_MODEL}"
    )
    evaluate.add_argument("--store", metavar="URI", help="index to evaluate; made when missing")
    evaluate.add_argument("--split", default="test", choices=("train", "val", "test"))
    evaluate.add_argument("--candidates", type=_positive, default=100, metavar="N", help="hits re-ranked")
    evaluate.add_argument("--threshold-m", type=float, default=25.0, metavar="M", help="default: %(default)s")
    _add_execution(evaluate)
    _add_matching(evaluate)
    evaluate.add_argument("--report", metavar="DIR", help="write index.html and evaluation.json there")
    _add_image_size(evaluate)
    _add_quiet(evaluate)

    _add_finetune(verb("finetune", "train the adapters of a model on one's own city"))

    embed = verb("embed", "write descriptors and local features of images to a .npz file")
    embed.add_argument("image", nargs="+", metavar="IMAGE")
    embed.add_argument("--model", required=True, metavar="M", help="name or file")
    embed.add_argument("--out", required=True, metavar="FILE.npz")
    _add_execution(embed)
    _add_image_size(embed)
    _add_max_rejected(embed)

    weights = verb("import-weights", "turn a published SelaVPR checkpoint into safetensors")
    weights.add_argument("checkpoint", metavar="CHECKPOINT.pth")
    weights.add_argument("--out", required=True, metavar="FILE.safetensors")
    weights.add_argument("--heads", type=_positive, metavar="N", help="attention heads, if not a DINOv2 size")

    verb("info", "describe a store", store=True)
    verify = verb("verify", "check every row, descriptor and feature of a store", store=True)
    verify.add_argument("--repair", action="store_true", help="take out what is broken and list it")
    verb("compact", "merge small files and remove what nothing refers to", store=True)
    delete = verb("delete", "delete images from a store", store=True)
    delete.add_argument("image_id", nargs="+", metavar="IMAGE_ID")
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    """Flags whose names are those of `serving.settings`."""
    setting = partial(_add_setting, parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s; others need a token")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0 takes a free one")
    setting("model", "name or file; default: the store's", metavar="M")
    setting(
        "topology", "one process, or a deployment a stage; default: compact", choices=("compact", "split")
    )
    setting("shards", "parts of the index, with --topology split", type=_positive, metavar="N")
    setting("method", "of search; default: auto", choices=("auto", "exact", "ivf", "lance"))
    _add_execution(parser)
    _add_matching(parser)
    setting("memory-gib", "descriptors in memory a searcher; default: 4", type=float, metavar="GIB")
    setting("refresh-s", "look for new commits this often; default: 2", type=float, metavar="S")
    setting("cache-mib", "features in memory a re-ranker; default: 256", type=int, metavar="MIB")
    setting("max-batch", "photos a forward pass; default: 8", type=_positive, metavar="N")
    setting("max-queue", "queries that wait a replica; default: 32", type=_positive, metavar="N")
    setting("max-in-flight", "queries under way an ingress; default: 64", type=_positive, metavar="N")
    setting("max-candidates", "most that a client may ask for; default: 1000", type=_positive, metavar="N")
    setting("request-timeout-s", "default: 30", type=float, metavar="S")
    setting("receive-timeout-s", "for a body to come; default: 5", type=float, metavar="S")
    setting("max-body-mib", "default: 16", type=float, metavar="MIB")
    setting("threads", "of the model in each process; default: half the cores", type=_positive, metavar="N")
    setting("tiles", "URL template of street tiles; '' for none", metavar="URL")
    setting("log-file", "append logs there; '-': stderr; default: a new file", metavar="FILE")
    for role in ("ingress", "extractor", "searcher", "reranker"):
        setting(f"{role}-replicas", "N, or MIN..MAX to scale with the load", type=_range, metavar="N")
    for role in ("ingress", "extractor", "searcher", "reranker"):
        setting(f"{role}-gpus", "share of a GPU for each replica", type=float, metavar="X")


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.training.job`, and those whose names are those of its settings."""
    parser.add_argument("dataset", metavar="DATASET", help="data set with images/train and images/val")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="new weights file")
    parser.add_argument("--split", default="train", metavar="S", help="trained on; default: %(default)s")
    parser.add_argument("--val", metavar="DATASET", help="data set to validate with; default: the same")
    parser.add_argument("--val-split", default="val", metavar="S", help="default: %(default)s")
    parser.add_argument(
        "--workers", type=_range, default=(1, 1), metavar="N", help="N, or MIN..MAX to go on with fewer"
    )
    parser.add_argument("--gpus-per-worker", type=_share, metavar="X", help="default: 1 where there are GPUs")
    parser.add_argument("--run", metavar="DIR", help="log, checkpoints and report; default: FILE.run")
    parser.add_argument("--storage", metavar="URI", help="where checkpoints go instead, such as s3://...")
    parser.add_argument("--max-failures", type=int, default=3, metavar="N", help="of workers; default: 3")
    parser.add_argument("--keep-floor", action="store_true", help="do not choose the similarity floor anew")

    setting = partial(_add_setting, parser)
    setting("model", f"name or file to start from; default: {DEFAULT_MODEL}", metavar="M")
    setting("epochs", "at most; default: 50", type=_positive, metavar="N")
    setting("patience", "epochs without a better R@5; default: 3", type=_positive, metavar="N")
    setting("queries-per-epoch", "default: 5000", type=_positive, metavar="N")
    setting("queries-per-round", "between two minings; default: 1000", type=_positive, metavar="N")
    setting("sampled", "photos negatives are mined among; default: 1000", type=_positive, metavar="N")
    setting("batch", "queries a step over all workers; default: 4", type=_positive, metavar="N")
    setting("accumulate", "parts each worker computes a step in; default: 1", type=_positive, metavar="N")
    setting("negatives", "of each query; default: 2", type=_positive, metavar="N")
    setting("mining", "default: partial", choices=("partial", "full", "random", "msls_weighted"))
    setting("positive-m", "positives lie within; default: 10", type=float, metavar="M")
    setting("negative-m", "negatives lie beyond; default: 25", type=float, metavar="M")
    setting("learning-rate", "default: 1e-5, the convolutional model 1e-4", type=float, metavar="X")
    setting("weight-decay", "default: 0", type=float, metavar="X")
    setting("margin", "of the triplet loss; default: 0.1", type=float, metavar="X")
    setting("local-weight", "of the loss on local features; default: 1", type=float, metavar="X")
    setting("adapter-stages", "of the convolutional model; default: 2,3,4,5,6", type=_stages, metavar="LIST")
    setting("local-head", "train a local head for the convolutional model", action="store_true")
    setting("precision", "default: auto, bf16 on accelerators", choices=("auto", "fp32", "bf16"))
    setting("recompute", "maps in the backward pass: less memory, more time", action="store_true")
    setting("seed", "of every draw; default: 0", type=int, metavar="N")
    setting("val-queries", "queries asked in validation; default: 1000", type=_positive, metavar="N")
    setting("val-candidates", "re-ranked in validation; default: 100", type=_positive, metavar="N")
    setting("threshold-m", "an answer is right within; default: 25", type=float, metavar="M")
    setting("threads", "of torch a worker; default: its cores", type=_positive, metavar="N")
    for name, about in (
        ("jitter", "of colours, 0..1"),
        ("perspective", "distortion, 0..1"),
        ("crop", "random, share of the area cut away at most"),
        ("rotation-deg", "at most"),
        ("flip", "of whole triplets, chance 0..1"),
    ):
        setting(name, f"{about}; default: 0", type=float, metavar="X")
    _add_image_size(parser, default=argparse.SUPPRESS)
    _add_max_rejected(parser)
    _add_quiet(parser)


def _add_execution(parser: argparse.ArgumentParser) -> None:
    """Flags of `models.runtime.execution`."""
    setting = partial(_add_setting, parser)
    setting(
        "precision",
        "bf16: faster where the processor has it, nearly the same; default: auto, bf16 on accelerators",
        choices=("auto", "fp32", "bf16"),
    )
    setting("compile", "compile the model first, for accelerators; takes minutes", action="store_true")


def _add_matching(parser: argparse.ArgumentParser) -> None:
    """Flags of `serving.reranking`."""
    setting = partial(_add_setting, parser)
    setting(
        "matching",
        "fast: approximate counts on large feature maps, the first answer stays exact; default: exact",
        choices=("exact", "fast"),
    )
    setting("stop-early", "leave out candidates once one stands far above the others", action="store_true")
    setting(
        "rerank-budget-ms",
        "leave out candidates after this time; default: none",
        type=_milliseconds,
        metavar="MS",
    )


def _add_setting(parser: argparse.ArgumentParser, name: str, about: str, **options: Any) -> None:
    """Add a flag that, when it is not given, leaves the setting of that name at its default."""
    parser.add_argument(f"--{name}", help=about, default=argparse.SUPPRESS, **options)


def _add_image_size(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    about = "network input in pixels; ViTs: multiples of 14"
    parser.add_argument("--image-size", type=_size, default=default, metavar="HxW", help=about)


def _add_max_rejected(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-rejected",
        type=_share,
        default=0.1,
        metavar="SHARE",
        help="exit with code 3 above this share of rejected images; default: %(default)s",
    )


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _milliseconds(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 3_600_000.0:
        raise argparse.ArgumentTypeError(f"{text} is no time from 0 ms to an hour")
    return number


def _range(text: str) -> tuple[int, int]:
    least, _, most = text.partition("..")
    return _positive(least), _positive(most or least)


def _stages(text: str) -> tuple[int, ...]:
    return tuple(int(stage) for stage in text.split(","))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    return _positive(height), _positive(width or height)


def _share(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 64.0:
        raise argparse.ArgumentTypeError(f"{text} is below 0 or too large")
    return number

"""The arguments of serve."""

from __future__ import annotations

import argparse
from functools import partial

from pipelines import defaults
from pipelines.cli.arguments.answers import add_matching
from pipelines.cli.arguments.model import WEIGHTS_HELP, add_aggregation, add_execution
from pipelines.cli.arguments.values import count_range
from pipelines.cli.flags import add_flag, add_settings
from serving.settings import Scale, ServeSettings

__all__ = ["ROLES", "add_serve"]

ROLES = ("ingress", "extractor", "searcher", "reranker")


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.serve` and of its settings."""
    add_flag(parser, "host", str, "address; others than loopback need a token", default=defaults.HOST)
    add_flag(parser, "port", int, "port; 0: any free one", default=defaults.PORT)
    setting = partial(add_settings, parser, ServeSettings)
    help = "YAML file with any of these settings, as placeray tune writes; flags win"
    add_flag(parser, "settings", str, help, metavar="PATH")
    setting("at", "model", "topology")
    add_flag(parser, "weights", str, WEIGHTS_HELP, metavar="FILE.safetensors")
    add_aggregation(parser)
    setting("shards", "method", ge=1)
    add_execution(parser)
    add_matching(parser)
    setting("memory_gib", "refresh_s", "cache_mib", "max_batch", "max_queue", "max_in_flight")
    setting("candidates", "max_candidates")
    setting("request_timeout_s", "receive_timeout_s", "max_body_mib", "max_megapixels")
    setting("threads", ge=1)
    setting("allowed_hosts", "tiles", "log_file")
    for role in ROLES:
        parser.add_argument(
            f"--{role}-replicas",
            type=count_range,
            default=argparse.SUPPRESS,
            metavar="N",
            help=f"number of replicas, or MIN..MAX to scale with the load; default: {Scale().min_replicas}",
        )
    for role in ROLES:
        add_settings(parser, Scale, f"{role}_gpus", aliases={f"{role}_gpus": "num_gpus"})

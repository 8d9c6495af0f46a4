"""Flags that name a model and how it runs: --model, --weights, --aggregation, --features, --image-size."""

from __future__ import annotations

import argparse

from models.runtime.execution import OPTIONS as EXECUTION_OPTIONS
from models.runtime.execution import Execution
from pipelines.cli.flags import add_flag, add_settings
from storage.card import FEATURE_ENCODINGS, NO_FEATURES

__all__ = [
    "MODEL_HELP",
    "WEIGHTS_HELP",
    "add_aggregation",
    "add_execution",
    "add_features",
    "add_image_size",
    "add_model",
]

MODEL_HELP = "name, weights file, timm:NAME or model file (.toml)"

WEIGHTS_HELP = "weights of a timm:NAME or of a model file, in place of its own"


def add_model(parser: argparse._ActionsContainer, default: str = "the store's") -> None:
    """Add --model and --weights.

    Args:
        parser: Of the verb.
        default: What the model is without the flag, for --help.
    """
    add_flag(parser, "model", str, f"{MODEL_HELP}; default: {default}")
    add_flag(parser, "weights", str, WEIGHTS_HELP, metavar="FILE.safetensors")


def add_aggregation(parser: argparse._ActionsContainer) -> None:
    """Add --aggregation."""
    help = (
        "descriptors of a new store: learned (from its photos), gem (the model's own), or the FILE of an "
        "aggregation; must match an existing store; default: learned, or gem for models with a trained head"
    )
    add_flag(parser, "aggregation", str, help, metavar="learned|gem|FILE")


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add --features."""
    parser.add_argument(
        "--features",
        choices=(*FEATURE_ENCODINGS, NO_FEATURES),
        help="encoding of local features in a new store; smaller ones lose some detail; none: descriptors "
        "alone; default: float16, int4-pca64 for large feature maps, or none for models that need none",
    )


def add_image_size(parser: argparse.ArgumentParser) -> None:
    """Add --image-size."""
    help = (
        "input size of the network in pixels; multiples of 14 for ViTs; default: the store's or the model's"
    )
    add_flag(parser, "image_size", tuple[int, int], help)


def add_execution(parser: argparse._ActionsContainer) -> None:
    """Add the flags of how the network is run."""
    add_settings(parser, Execution, *EXECUTION_OPTIONS, aliases=EXECUTION_OPTIONS)

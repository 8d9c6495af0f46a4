"""The arguments of verbs that make models: finetune, import-weights, export."""

from __future__ import annotations

import argparse
from functools import partial

from models.training.options import Augmentation
from pipelines import defaults
from pipelines.cli.arguments.model import add_image_size
from pipelines.cli.arguments.photos import add_follow_links, add_max_rejected
from pipelines.cli.arguments.values import add_quiet, count_range
from pipelines.cli.flags import add_flag, add_settings
from pipelines.cli.storage_options import add_storage_options
from pipelines.training.settings import TrainingSettings

__all__ = ["add_export", "add_finetune", "add_import_weights"]


def add_finetune(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.training.job.finetune` and of its settings."""
    parser.add_argument("dataset", metavar="DATASET", help="data set with images/train and images/val")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="new weights file")
    flag = partial(add_flag, parser)
    flag("split", str, "split to train on", default=defaults.TRAINING_SPLIT)
    flag("val", str, "data set to validate with; default: the same", metavar="DATASET")
    flag("val_split", str, "split to validate with", default=defaults.VALIDATION_SPLIT)
    parser.add_argument(
        "--workers",
        type=count_range,
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
    add_follow_links(parser)
    add_max_rejected(parser)
    add_quiet(parser)


def add_import_weights(parser: argparse.ArgumentParser) -> None:
    """Flags of the import of published checkpoints."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT.pth")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors")
    add_flag(parser, "heads", int, "attention heads, if it is not a DINOv2 size", ge=1)
    help = "keep the trunk of SelaVPR++ in the file even where timm's hub has it; asks no hub"
    add_flag(parser, "whole", bool, help)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Flags of `pipelines.export`."""
    add_flag(parser, "store", str, "store whose descriptors are written, or whose model", metavar="URI")
    add_storage_options(parser)
    add_flag(parser, "model", str, "name or weights file of the model that is written")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write: .npy, .parquet or .onnx")
    add_image_size(parser)

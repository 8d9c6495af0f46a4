"""The settings of a fine-tuning run, as plain values that a checkpoint can hold and compare."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from models.names import DEFAULT_MODEL
from models.photo_limits import MAX_MEGAPIXELS, MEGAPIXELS_BOUND, MEGAPIXELS_HELP
from models.runtime.execution import Precision
from models.training.options import MARGIN, Augmentation
from pipelines.training.errors import BadSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Strategy", "TrainingSettings", "settings_of"]

Strategy = Literal["partial", "full", "random", "msls_weighted"]

# Lu et al., ICLR 2024, section 4.1; for the convolutional model see benchmarks/README.md.
_PUBLISHED_RATE, _CONVOLUTIONAL_RATE, _SIDE_PATH_RATE = 1e-5, 1e-4, 4e-4

_AT_LEAST_ONE = (
    "epochs",
    "patience",
    "queries_per_epoch",
    "queries_per_round",
    "sampled",
    "batch",
    "accumulate",
    "negatives",
    "val_queries",
    "val_candidates",
)


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe; each field describes itself in its metadata.

    Defaults are the published ones (Lu et al., ICLR 2024, section 4.1) unless the field says otherwise.
    """

    model: str = field(default=DEFAULT_MODEL, metadata={"help": "name or weights file to start from"})
    image_size: tuple[int, int] | None = field(
        default=None,
        metadata={
            "help": "input size of the network in pixels; multiples of 14 for ViTs; default: the model's"
        },
    )
    max_megapixels: float = field(
        default=MAX_MEGAPIXELS, metadata={"help": MEGAPIXELS_HELP, "gt": 0, "le": MEGAPIXELS_BOUND}
    )
    adapter_stages: tuple[int, ...] = field(
        default=(2, 3, 4, 5, 6), metadata={"help": "stages of the convolutional model that get adapters"}
    )
    local_head: bool = field(
        default=False, metadata={"help": "train a head for local features of the convolutional model"}
    )
    codes: bool = field(
        default=False,
        metadata={"help": "train the hash branch of a SelaVPR++ instead, from its trained float branch"},
    )
    epochs: int = field(default=50, metadata={"help": "maximum number of epochs", "ge": 1})
    patience: int = field(
        default=3, metadata={"help": "stop after this many epochs without a better R@5", "ge": 1}
    )
    queries_per_epoch: int = field(
        default=5_000, metadata={"help": "maximum number of training queries per epoch", "ge": 1}
    )
    queries_per_round: int = field(
        default=1_000, metadata={"help": "training queries between two rounds of mining", "ge": 1}
    )
    sampled: int = field(
        default=1_000, metadata={"help": "database photos that negatives are mined from", "ge": 1}
    )
    batch: int = field(default=4, metadata={"help": "queries per step, over all workers", "ge": 1})
    accumulate: int = field(
        default=1,
        metadata={
            "help": "parts in which each worker computes its share of a step; more take less memory",
            "ge": 1,
        },
    )
    negatives: int = field(default=2, metadata={"help": "negatives per query", "ge": 1})
    mining: Strategy = field(default="partial", metadata={"help": "strategy for choosing negatives"})
    positive_m: float = field(default=10.0, metadata={"help": "largest distance of positives in metres"})
    negative_m: float = field(default=25.0, metadata={"help": "smallest distance of negatives in metres"})
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "learning rate of Adam; default: 1e-5, 1e-4 for the default model, 4e-4 for SelaVPR++"
        },
    )
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled weight decay (AdamW)"})
    margin: float = field(
        default=MARGIN, metadata={"help": "margin of the triplet loss, in L2 distance of descriptors"}
    )
    local_weight: float = field(default=1.0, metadata={"help": "weight of the loss on local features"})
    precision: Precision = field(
        default="auto", metadata={"help": "numeric precision; auto: bf16 on accelerators, fp32 on CPUs"}
    )
    recompute: bool = field(
        default=False, metadata={"help": "recompute activations in the backward pass: less memory, more time"}
    )
    augmentation: Augmentation = field(
        default_factory=Augmentation, metadata={"help": "augmentation of training photos; default: none"}
    )
    seed: int = field(default=0, metadata={"help": "seed of all random draws"})
    val_queries: int = field(
        default=1_000, metadata={"help": "maximum number of validation queries", "ge": 1}
    )
    val_candidates: int = field(default=100, metadata={"help": "candidates re-ranked in validation", "ge": 1})
    threshold_m: float = field(
        default=25.0, metadata={"help": "distance in metres up to which a result is correct"}
    )
    threads: int = field(
        default=0,
        metadata={
            "help": "torch threads per worker; default: its cores",
            "ge": 1,
        },
    )

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise BadSettings(f"{name} {getattr(self, name)} is below 1: give at least 1")
        for name in ("learning_rate", "positive_m", "negative_m", "margin", "threshold_m"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise BadSettings(f"{name} {getattr(self, name):g} is out of range: give a number above 0")
        for name in ("weight_decay", "local_weight", "seed", "threads"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadSettings(f"{name} {getattr(self, name):g} is out of range: give 0 or more")
        if self.batch > self.round_size:
            raise BadSettings(
                f"batch {self.batch} is more than the {self.round_size} queries of a round or an epoch: "
                "give a smaller batch, or more queries_per_round and queries_per_epoch"
            )
        if self.positive_m > self.negative_m:
            raise BadSettings(
                f"positives up to {self.positive_m:g} m and negatives beyond {self.negative_m:g} m overlap: "
                "give a smaller positive or a larger negative distance"
            )
        for name, kind in (("mining", Strategy), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise BadSettings(f"unknown {name} {getattr(self, name)!r}: use {', '.join(get_args(kind))}")

    @property
    def round_size(self) -> int:
        """Number of queries for which triplets are mined at once, not more than an epoch has."""
        return min(self.queries_per_round, self.queries_per_epoch)

    def with_rate_for(self, model: nn.Module) -> TrainingSettings:
        """Return the settings with the default learning rate for a model, where none is set."""
        if self.learning_rate is not None:
            return self
        from models.networks.efficientnet import EfficientNetLite0  # loads torch
        from models.networks.selavprpp import SelaVPRpp

        rate = _CONVOLUTIONAL_RATE if isinstance(model, EfficientNetLite0) else _PUBLISHED_RATE
        rate = _SIDE_PATH_RATE if isinstance(model, SelaVPRpp) else rate
        return dataclasses.replace(self, learning_rate=rate)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    def differences(self, others: Any) -> list[str]:
        """Return the names of settings that differ from those of another run after JSON, except threads."""
        own = json.loads(json.dumps(self.to_dict()))
        if not isinstance(others, dict):
            return sorted(own)
        # Runs begun before there were these settings.
        others = {"max_megapixels": MAX_MEGAPIXELS, "codes": False} | others
        return sorted(name for name in own if name != "threads" and own[name] != others.get(name))


def settings_of(flags: Mapping[str, Any]) -> TrainingSettings:
    """Return settings from the flags of the command line; flags without a value keep the default.

    Raises:
        BadSettings: a value is out of range.
    """
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    parts = {field.name for field in dataclasses.fields(Augmentation)}
    try:
        augmentation = Augmentation(**{name: flags[name] for name in parts & flags.keys()})
    except ValueError as error:
        raise BadSettings(str(error)) from error
    values = {name: flags[name] for name in names & flags.keys()}
    return TrainingSettings(**values, augmentation=augmentation)

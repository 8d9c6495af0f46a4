"""What one run of fine-tuning is told, as plain values that a checkpoint can hold and compare."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import nn

from models.names import DEFAULT_MODEL
from models.networks.efficientnet import EfficientNetLite0
from models.runtime.execution import Precision
from models.training.augment import Augmentation
from models.training.losses import MARGIN
from pipelines.training.errors import BadSettings
from pipelines.training.mining import Strategy

__all__ = ["TrainingSettings", "settings_of"]

# Lu et al., ICLR 2024, section 4.1; for the convolutional model see benchmarks/README.md.
_PUBLISHED_RATE, _CONVOLUTIONAL_RATE = 1e-5, 1e-4

_AT_LEAST_ONE = (
    *("epochs", "patience", "queries_per_epoch", "queries_per_round", "sampled"),
    *("batch", "accumulate", "negatives", "val_queries", "val_candidates"),
)


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe; defaults are the published ones (Lu et al., ICLR 2024, section 4.1) unless said otherwise.

    Attributes:
        model: Name or weights file that training starts from.
        image_size: Height and width of the network's input; None: as the model was made.
        adapter_stages: For the convolutional model: after which stages adapters are put.
        local_head: Train an up-convolution head for local features; SelaVPR models always have one.
        epochs: Most epochs.
        patience: Epochs without a better score on the validation split after which training stops.
        queries_per_epoch: Queries trained on in an epoch; fewer where fewer can be.
        queries_per_round: Queries for which triplets are mined at once.
        sampled: Database photos that negatives are mined among.
        batch: Queries a step, over all workers.
        accumulate: Parts that each worker computes its share of a step in; more parts take less memory.
        negatives: Negatives for each query.
        mining: Which strategy of `pipelines.training.mining`.
        positive_m: Photos up to this distance are positives.
        negative_m: Photos beyond this distance may be negatives.
        learning_rate: Of Adam; None: as published for a SelaVPR model, ten times that for the convolutional
            one, whose adapters are far fewer.
        weight_decay: Of AdamW, decoupled; 0 is Adam.
        margin: Of the triplet loss, in L2 distance of descriptors.
        local_weight: Of the loss on local features beside the triplet loss.
        precision: `auto`: bf16 on an accelerator, fp32 on a CPU.
        recompute: Compute maps again in the backward pass instead of keeping them.
        augmentation: Of the training photos; off as published.
        seed: Of every draw.
        val_queries: Most validation queries, drawn by the seed.
        val_candidates: Candidates re-ranked in validation.
        threshold_m: Distance up to which an answer is right in validation.
        threads: Of torch in each worker; 0: the cores it was given.
    """

    model: str = DEFAULT_MODEL
    image_size: tuple[int, int] | None = None
    adapter_stages: tuple[int, ...] = (2, 3, 4, 5, 6)
    local_head: bool = False
    epochs: int = 50
    patience: int = 3
    queries_per_epoch: int = 5_000
    queries_per_round: int = 1_000
    sampled: int = 1_000
    batch: int = 4
    accumulate: int = 1
    negatives: int = 2
    mining: Strategy = "partial"
    positive_m: float = 10.0
    negative_m: float = 25.0
    learning_rate: float | None = None
    weight_decay: float = 0.0
    margin: float = MARGIN
    local_weight: float = 1.0
    precision: Precision = "auto"
    recompute: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    val_queries: int = 1_000
    val_candidates: int = 100
    threshold_m: float = 25.0
    threads: int = 0

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise BadSettings(f"{name} {getattr(self, name)} is below 1: give at least 1")
        for name in ("learning_rate", "positive_m", "negative_m", "margin", "threshold_m"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise BadSettings(f"{name} {getattr(self, name):g} is not above 0 and finite: mend that")
        for name in ("weight_decay", "local_weight", "seed", "threads"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadSettings(f"{name} {getattr(self, name):g} is not 0 or more and finite: mend that")
        if self.batch > self.queries_a_round:
            raise BadSettings(
                f"batch {self.batch} is more than the {self.queries_a_round} queries of a round or an epoch: "
                "give a smaller batch, or more queries_per_round and queries_per_epoch"
            )
        if self.positive_m > self.negative_m:
            raise BadSettings(
                f"positives up to {self.positive_m:g} m and negatives beyond {self.negative_m:g} m overlap: "
                "give a smaller positive or a larger negative distance"
            )
        for name, kind in (("mining", Strategy), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise BadSettings(f"no {name} {getattr(self, name)!r}: use {', '.join(get_args(kind))}")

    @property
    def queries_a_round(self) -> int:
        """Return for how many queries triplets are mined at once: never more than an epoch has."""
        return min(self.queries_per_round, self.queries_per_epoch)

    def with_rate_for(self, model: nn.Module) -> TrainingSettings:
        """Return the settings with the learning rate that suits a model, where none was given."""
        if self.learning_rate is not None:
            return self
        rate = _CONVOLUTIONAL_RATE if isinstance(model, EfficientNetLite0) else _PUBLISHED_RATE
        return dataclasses.replace(self, learning_rate=rate)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    def differences(self, others: Any) -> list[str]:
        """Return the names of what differs from the settings of another run after JSON, threads aside."""
        mine = json.loads(json.dumps(self.to_dict()))
        if not isinstance(others, dict):
            return sorted(mine)
        return sorted(name for name in mine if name != "threads" and mine[name] != others.get(name))


def settings_of(flags: Mapping[str, Any]) -> TrainingSettings:
    """Read settings off the flags of the command line; a flag not given leaves its default in force.

    Raises:
        BadSettings: a value makes no sense.
    """
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    parts = {field.name for field in dataclasses.fields(Augmentation)}
    try:
        augmentation = Augmentation(**{name: flags[name] for name in parts & flags.keys()})
    except ValueError as error:
        raise BadSettings(str(error)) from error
    given = {name: flags[name] for name in names & flags.keys()}
    return TrainingSettings(**given, augmentation=augmentation)

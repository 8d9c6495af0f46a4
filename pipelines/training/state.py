"""Progress of training at the end of a round, as plain values that a checkpoint holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from models.errors import WeightsRejected
from pipelines.training.mining import MiningState
from pipelines.training.rankings import rankings_of

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """Progress of training at the end of a round.

    Attributes:
        epoch: Epochs finished.
        round: Rounds of the current epoch finished.
        step: Steps taken.
        mining: The state of mining.
        best: Best validation score so far.
        best_epoch: Its epoch.
        ranking: Aggregation and score with which it was reached.
        misses: Epochs since the best one.
        seconds: Time spent so far.
        validated: Whether the untrained model has been validated.
    """

    mining: MiningState
    epoch: int = 0
    round: int = 0
    step: int = 0
    best: tuple[float, ...] = ()
    best_epoch: int = 0
    misses: int = 0
    seconds: float = 0.0
    validated: bool = False
    ranking: tuple[str, ...] = ("gem", "count")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **vars(self),
            "mining": self.mining.to_dict(),
            "best": list(self.best),
            "ranking": list(self.ranking),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Progress:
        """Read `to_dict` back, also after JSON.

        Raises:
            WeightsRejected: the values are not of this form.
            MiningRejected: those of mining are not.
        """
        try:
            counts = {name: int(values[name]) for name in ("epoch", "round", "step", "best_epoch", "misses")}
            numbers = [float(values["seconds"]), *map(float, values["best"])]
            if min(counts.values()) < 0 or not all(map(math.isfinite, numbers)):
                raise ValueError("numbers are 0 or more and finite")
            seconds, *best = numbers
            mining, validated = values["mining"], bool(values["validated"])
            # Checkpoints of earlier versions were chosen by the model's own descriptors and the count.
            ranking = tuple(map(str, values.get("ranking", ("gem", "count"))))
            if ranking not in {each[:2] for each in rankings_of(None)}:
                raise ValueError(f"{ranking} is no way to rank")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WeightsRejected(
                "wrong_layout",
                f"the checkpoint holds no valid progress ({error!r}): resume from another one",
            ) from error
        mining = MiningState.from_dict(mining)
        return cls(mining, **counts, best=tuple(best), seconds=seconds, validated=validated, ranking=ranking)

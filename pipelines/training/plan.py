"""Checks before training whether the data suffice, and prepares neighbours and the validation set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.training.data import TrainingSet
from pipelines.training.errors import DataRejected
from pipelines.training.mining import msls_weights
from pipelines.training.neighbours import Neighbours, find_neighbours
from pipelines.training.settings import TrainingSettings
from pipelines.training.validation import ValidationSet, validation_set

__all__ = ["Plan", "check_data"]


@dataclass(frozen=True)
class Plan:
    """Neighbours of the training photos, the validation set, and weights of the queries."""

    neighbours: Neighbours
    truth: ValidationSet
    weights: NDArray[np.float64] | None = field(repr=False)


def check_data(training: TrainingSet, validation: TrainingSet, settings: TrainingSettings) -> Plan:
    """Check that the data can be trained on and validated with.

    Raises:
        MiningRejected: coordinates are missing, or there is nothing to train on.
        DataRejected: the splits are the same photos, queries are too few, or have no marks to weight them by.
    """
    if training.folder == validation.folder:
        raise DataRejected(
            "no_validation",
            f"{validation.folder} would be used for both training and validation: give a data set with "
            "images/train and images/val, or another one with --val",
        )
    neighbours = find_neighbours(
        training.queries,
        training.database,
        positive_m=settings.positive_m,
        negative_m=settings.negative_m,
        negatives=settings.negatives,
    )
    if len(neighbours.usable) < settings.batch:
        raise DataRejected(
            "few_queries",
            f"{len(neighbours.usable)} queries can be trained on, fewer than the {settings.batch} of a step: "
            "give a smaller --batch or more queries",
        )
    weights = None
    if settings.mining == "msls_weighted":
        night, sideways = training.queries.night, training.queries.sideways
        if not (night.any() or sideways.any()):
            raise DataRejected(
                "no_marks",
                "no query is marked night or sideways in the note of its file name, which msls_weighted "
                "needs: use --mining partial",
            )
        weights = msls_weights(night, sideways)
    truth = validation_set(
        validation.queries,
        validation.database,
        threshold_m=settings.threshold_m,
        max_queries=settings.val_queries,
        seed=settings.seed,
    )
    return Plan(neighbours, truth, weights)

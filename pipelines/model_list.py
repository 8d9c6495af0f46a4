"""The list of models, with the time of those that can be loaded here.

placeray models --bench
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import numpy as np

from models.catalogue import catalogue, known_model
from models.custom.reference import is_reference, read_reference, shown
from models.runtime.execution import AS_USUAL, Execution
from storage.errors import PlacerayError

__all__ = ["list_models"]

_ROUNDS = 7


def list_models(
    models: list[str], *, bench: bool = False, execution: Execution = AS_USUAL
) -> list[dict[str, Any]]:
    """Return one row per model, ready for JSON.

    Args:
        models: Names, weights files or references to list; empty: every model that is known.
        bench: Whether to measure the milliseconds per photo of those that can be loaded.
        execution: How the network is run.

    Returns:
        The fields of `KnownModel`; with `bench` also `ms_per_photo`, `device` and `precision`, or
        `not_measured`, why.
    """
    rows = [
        {**dataclasses.asdict(row), "listed": row.name}
        for row in catalogue()
        if not models or row.name in models
    ]
    rows += [_row_of(model) for model in models if model not in {row["listed"] for row in rows}]
    for row in rows:
        model = row.pop("listed")
        if bench:
            row |= _measured(model, execution) if row["loads"] else {"not_measured": row["needs"]}
        del row["loads"]
    return rows


def _row_of(model: str) -> dict[str, Any]:
    """Return the row of a file or reference, which is loaded for its card."""
    from models.aggregation.choice import LEARNED, default_aggregation
    from models.weights import load_card

    card = load_card(model)
    own = is_reference(model)
    licence = read_reference(model).definition.licence if own else ""
    row = known_model(
        shown(model) if own else model,
        card,
        needs="the file" if not own or shown(model).endswith(".toml") else "timm's hub, or --weights",
        licence=licence or "not stated",
        learned=card.feature_dim > 0 and default_aggregation(card) == LEARNED,
    )
    return {**dataclasses.asdict(row), "listed": model}


def _measured(model: str, execution: Execution) -> dict[str, Any]:
    """Return the median time of one photo at the model's input size, from pixels to descriptor."""
    from models.weights import load_extractor

    try:
        extractor = load_extractor(model, execution=execution)
    except PlacerayError as error:
        return {"not_measured": str(error)}
    pre = extractor.card.preprocessing
    photo = np.random.default_rng(0).integers(0, 255, (2 * pre.height, 2 * pre.width, 3), dtype=np.uint8)
    extractor.extract([photo])
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        extractor.extract([photo])
        seconds.append(time.perf_counter() - began)
    return {
        "ms_per_photo": round(statistics.median(seconds) * 1e3, 1),
        "device": str(extractor.device),
        "precision": extractor.precision,
    }

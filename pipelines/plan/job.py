"""Plans an index run: a trial, and what follows from it."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from models.runtime.execution import AS_USUAL, Execution
from pipelines.indexing.opening import card_of
from pipelines.plan.errors import NoGpuFigure
from pipelines.plan.estimate import Prices, Workload, estimate
from pipelines.plan.figures import Figures
from pipelines.plan.trial import measure
from pipelines.progress import ProgressBar
from storage.card import Card, FeatureEncoding
from storage.objects.address import is_bucket_uri

__all__ = ["plan_index"]


def plan_index(
    images: int,
    *,
    model: str | None = None,
    store_uri: str | None = None,
    image_size: tuple[int, int] | None = None,
    features: FeatureEncoding | None = None,
    aggregation: str | None = None,
    cores: float | None = None,
    gpus: int = 0,
    gpu_images_per_s: float | None = None,
    trial: int = 200,
    photos: str | None = None,
    scaled_decode: bool = False,
    prices: Prices | None = None,
    execution: Execution = AS_USUAL,
    figures: Figures | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return how long an index run takes, what it stores and what that costs.

    Args:
        images: Number of images to index.
        model: As of `index`.
        store_uri: The store; its card is used where it exists. None: a new one in a folder.
        image_size, features, aggregation: As of `index`.
        cores: Cores of all nodes; default: those of this machine.
        gpus: GPUs of all nodes.
        gpu_images_per_s: Images that a GPU processes per second; default: as measured where there is one.
        trial: Number of images to measure.
        photos: Source that they are taken from; default: pictures are drawn.
        scaled_decode: As of `index`.
        prices: Prices.
        execution: How the network is run.
        figures: Of a former trial, instead of a new one.
        quiet: Show no progress.

    Returns:
        `workload`, `figures`, `estimate` and `prices`, ready for JSON.

    Raises:
        CardMismatch: a flag does not fit the store.
        NoGpuFigure: nothing says how fast a GPU is.
        TrialFailed, SourceError: the photos of the trial cannot be used.
        WeightsUnavailable, WeightsRejected, UnknownModel: the model cannot be loaded.
    """
    work = Workload(
        images=images,
        cores=cores or os.cpu_count() or 1,
        gpus=gpus,
        gpu_images_per_s=gpu_images_per_s,
        bucket=store_uri is not None and is_bucket_uri(store_uri),
        photos_in_bucket=photos is not None and is_bucket_uri(photos),
    )
    prices = prices or Prices()
    if figures is None:
        card = _card(model, store_uri, image_size, features, aggregation)
        if gpus and gpu_images_per_s is None:
            _require_gpu()
        with ProgressBar("plan", quiet=quiet) as bar:
            figures = measure(
                card,
                model or card.model,
                images=trial,
                photos=photos,
                execution=execution,
                scaled_decode=scaled_decode,
                aggregation=aggregation,
                bar=bar,
            )
    made = estimate(work, figures, prices)
    return {
        "workload": dataclasses.asdict(work),
        "figures": dataclasses.asdict(figures),
        "estimate": dataclasses.asdict(made),
        "prices": dataclasses.asdict(prices),
    }


def _card(
    model: str | None,
    store_uri: str | None,
    image_size: tuple[int, int] | None,
    features: FeatureEncoding | None,
    aggregation: str | None,
) -> Card:
    """Return the card of a new store like the planned one, without its projection and its aggregation."""
    with tempfile.TemporaryDirectory(prefix="placeray-plan-") as nowhere:
        place = store_uri or str(Path(nowhere, "store"))
        card, fresh = card_of(model, image_size, place, features, aggregation)
    if fresh:
        return card
    from models.weights import load_card

    size = (card.preprocessing.height, card.preprocessing.width)
    return load_card(model or card.model, image_size=size).stored_as(card.feature_encoding)


def _require_gpu() -> None:
    """Check that a trial can measure a GPU, before it begins."""
    import torch

    if not torch.cuda.is_available():
        raise NoGpuFigure(
            "there is no GPU here to measure: run plan on a machine with one, or give --gpu-images-per-s"
        )

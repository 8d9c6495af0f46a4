"""Write descriptors and local features of images to a file that NumPy reads.

placeray embed photo.jpg --model efficientnet-lite0 --out photo.npz
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.aggregation import Aggregation, AggregationRejected
from models.aggregation.choice import GEM, LEARNED, chosen_aggregation, with_aggregation
from models.aggregation.describer import Describer
from models.images import ImageRejected, decode_image
from models.images.photo_file import read_bytes
from models.photo_limits import MAX_MEGAPIXELS, pixels_of
from models.runtime.execution import AS_USUAL, Execution
from models.store_fit import fitting_extractor, require_fit
from models.weights import load_extractor
from storage.card import Card
from storage.durable import replacing
from storage.features.encodings import FeatureCodec
from storage.store import Store

__all__ = ["embed"]


def embed(
    images: Sequence[str],
    out: str,
    *,
    model: str | None = None,
    store_uri: str | None = None,
    image_size: tuple[int, int] | None = None,
    aggregation: str | None = None,
    execution: Execution = AS_USUAL,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> tuple[int, list[dict[str, str]]]:
    """Embed images one by one; images that cannot be used are skipped.

    Args:
        images: Paths.
        out: `.npz` file; arrays `names` (N,) str, `descriptors` (N, D) float32, unit L2 norm, and `features`
            (N, H, W, C) float32, unit L2 norm per cell; of models that give codes also `codes`
            (N, code_bits / 8) uint8. Not written if no image can be used.
        model: Name or weights file; default: that of the store.
        store_uri: Store whose model and input size are used.
        image_size: Height and width of the network's input; default: the store's, or the model's.
        aggregation: `gem` or the file of an aggregation, without a store; default: `gem`, the model's own.
            With a store descriptors are the store's.
        execution: How the network is run.
        max_megapixels: Largest image.

    Returns:
        N, and path, reason and message of each skipped image.

    Raises:
        BadImageSize, UnknownModel, WeightsRejected, WeightsUnavailable: the model cannot be loaded.
        CardMismatch: the model or the input size is not that of the store.
        StoreError: the store cannot be opened.
        ValueError: neither a model nor a store is given.
        ModelFault: the model's output is not finite.
        CannotCompile: compiling was requested and is not possible here.
    """
    if store_uri is not None:
        store = Store.open(store_uri)
        card = store.card
        require_fit(store_uri, card, {"image_size": image_size, "aggregation": aggregation})
        extractor = fitting_extractor(store_uri, card, model, execution)
        describer = Describer(store.artifact, store.codec)
    elif model is not None:
        extractor = load_extractor(model, image_size=image_size, execution=execution)
        chosen = _without_store(aggregation, extractor.card)
        card = with_aggregation(extractor.card, chosen)
        codec = FeatureCodec(extractor.card)
        describer = Describer(lambda digest: chosen.to_bytes() if chosen else b"", codec)
    else:
        raise ValueError("embed needs a model, or a store whose model it uses")
    names, descriptors, features, codes, rejected = [], [], [], [], []
    for path in images:
        try:
            descriptor, feature, code = extractor.extraction(
                [decode_image(read_bytes(path), max_pixels=pixels_of(max_megapixels)).pixels]
            )
        except ImageRejected as error:
            rejected.append({"image": path, "reason": error.reason, "message": str(error)})
            continue
        names.append(path)
        descriptors.append(describer.describe(card, descriptor, feature)[0])
        features.append(feature[0])
        codes += [] if code is None else [code[0]]
    if names:
        _write(
            Path(out),
            names,
            np.stack(descriptors),
            np.stack(features),
            codes=np.stack(codes) if codes else None,
        )
    return len(names), rejected


def _write(
    out: Path,
    names: list[str],
    descriptors: NDArray[np.float32],
    features: NDArray[np.float32],
    *,
    codes: NDArray[np.uint8] | None,
) -> None:
    """Write the arrays: a device or a pipe is written to, a file is replaced once the new one is whole.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the folder cannot be written.
    """
    target = out.expanduser().resolve()  # of a link the file that it leads to
    special = target.exists() and not target.is_file()
    size = descriptors.nbytes + features.nbytes
    with open(target, "wb") if special else replacing(target, size) as file:
        coded = {} if codes is None else {"codes": codes}
        np.savez(file, names=np.array(names), descriptors=descriptors, features=features, **coded)  # type: ignore[arg-type]


def _without_store(chosen: str | None, card: Card) -> Aggregation | None:
    """Return the aggregation of a file, or None for the model's own descriptors.

    Raises:
        AggregationRejected: `learned`, which takes a store, or a file that does not fit.
    """
    if chosen == LEARNED:
        raise AggregationRejected(
            "no_store",
            "--aggregation learned takes the photos of a store: give --store, or the file of an aggregation",
        )
    return chosen_aggregation(chosen or GEM, card, FeatureCodec(card))

"""Second stage of an index run: descriptors and encoded local features from the model, in actors."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.runtime.execution import AS_USUAL, Execution
from pipelines.indexing.failures import reject_rows, with_failure
from pipelines.indexing.trace import span
from storage.artifacts import read_artifact
from storage.card import Card
from storage.errors import PlacerayError
from storage.features.encodings import open_codec
from storage.objects.location import open_location
from storage.table.schema import row_schema

__all__ = ["Extract", "unpack_pixels"]


class Extract:
    """The model in an actor. It loads the weights itself, so that it can be restarted on any machine.

    If the model cannot be used here (other weights than the driver's, missing weights, a damaged projection,
    no compiler), every row reports that in `failure`.

    Args:
        model: Name or weights file.
        store_uri: The store, whose projection encodes the features.
        card: Card of the store as JSON.
        threads: Torch threads on a CPU; 0 keeps torch's own choice.
        trace: File for timings, see `pipelines.indexing.trace`.
        execution: How the network is run.
        batch_size: Maximum number of images per batch.
    """

    def __init__(
        self,
        *,
        model: str,
        store_uri: str,
        card: str,
        threads: int = 0,
        trace: str | None = None,
        execution: Execution = AS_USUAL,
        batch_size: int = 1,
    ) -> None:
        import torch

        from models.networks.local_layer import LocalLayer
        from models.weights import load_extractor

        if threads:
            torch.set_num_threads(threads)
        self.card = Card.from_json(card)
        self.trace = trace
        self.failure: PlacerayError | None = None
        try:
            size = (self.card.preprocessing.height, self.card.preprocessing.width)
            local = LocalLayer.of_card(self.card)
            self.extractor = load_extractor(model, image_size=size, local=local, execution=execution)
            self.card.require_model(self.extractor.card)
            self._open(store_uri)
            self.extractor.warm_up(batch_size)
        except PlacerayError as error:
            self.failure = error

    def _open(self, store_uri: str) -> None:
        """Read what the store has learned."""
        from models.aggregation.describer import Describer
        from models.feature_encoder import FeatureEncoder

        folder = open_location(store_uri)
        codec = open_codec(folder, self.card)
        self.encoder = FeatureEncoder(codec, device=self.extractor.device)
        self.describer = Describer(partial(read_artifact, folder), codec)
        self.describer.aggregation(self.card)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Replace `pixels` by `descriptor`, `features` and any `code`; unusable outputs reject an image."""
        with span(self.trace, "extract", batch.num_rows) as line:
            table = self._replace_pixels(batch)
            line["bytes"] = table.nbytes
        return table

    def _replace_pixels(self, batch: pa.Table) -> pa.Table:
        batch, rows = self._usable(batch)
        descriptors: list[NDArray[Any] | None] = [None] * batch.num_rows
        features: list[bytes | None] = [None] * batch.num_rows
        codes: list[bytes | None] = [None] * batch.num_rows
        faults: dict[int, str] = {}
        if len(rows):
            pixels = unpack_pixels(batch["pixels"].take(pa.array(rows)), self.card)
            for row, made in zip(rows.tolist(), self._extract(pixels), strict=True):
                if isinstance(made, str):
                    faults[row] = made
                else:
                    descriptors[row], features[row], codes[row] = made
        types = row_schema(self.card, optional=("code",))
        table = reject_rows(batch.drop_columns(["pixels"]), faults, reason="model_fault")
        table = table.append_column("descriptor", pa.array(descriptors, types.field("descriptor").type))
        if self.card.code_bits is not None:
            table = table.append_column("code", pa.array(codes, types.field("code").type))
        return table.append_column("features", pa.array(features, pa.binary()))

    def _usable(self, batch: pa.Table) -> tuple[pa.Table, NDArray[np.int64]]:
        """Return the batch, with the failure if there is one, and the rows that have pixels."""
        if self.failure is not None:
            batch = with_failure(batch, self.failure)
            batch = batch.set_column(
                batch.column_names.index("pixels"), "pixels", pa.nulls(batch.num_rows, pa.binary())
            )
        return batch, np.flatnonzero(pc.is_valid(batch["pixels"]).to_numpy(zero_copy_only=False))

    def _extract(self, pixels: NDArray[Any]) -> list[tuple[NDArray[Any], bytes, bytes | None] | str]:
        """Return descriptor, encoded features and code of each image, or why there are none."""
        from models.errors import ModelFault

        try:
            descriptors, rows, codes = self.extractor.encoded_extraction(pixels, self.encoder)
        except ModelFault as error:
            if len(pixels) == 1:
                return [str(error)]
            # A single image can spoil a batch: run them one by one to find it.
            return [row for image in pixels for row in self._extract(image[None])]
        descriptors = self.describer.describe_rows(self.card, descriptors, rows)
        stored = descriptors.astype(self.card.descriptor_dtype)
        packed = [None] * len(rows) if codes is None else [code.tobytes() for code in codes]
        return [
            (descriptor, row.tobytes(), code)
            for descriptor, row, code in zip(stored, rows, packed, strict=True)
        ]


def unpack_pixels(column: pa.ChunkedArray, card: Card) -> NDArray[Any]:
    """Return the pixels of a column without nulls: (B, h, w, 3) uint8 or float32."""
    size = card.preprocessing
    dtype = np.uint8 if size.resize == "pil_bilinear" else np.float32
    images = [np.frombuffer(value.as_buffer(), dtype) for value in column]
    return np.stack(images).reshape(len(images), size.height, size.width, 3)

"""Learning the feature projection of a store to be made, from a sample that the job's actors extract."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.aggregation.sample import Sample, sample_key
from models.runtime.execution import Execution
from pipelines.indexing.columns import DECODED_SCHEMA
from pipelines.indexing.decode import decode
from pipelines.indexing.extract import Extract, unpack_pixels
from pipelines.indexing.failures import raise_failure
from pipelines.indexing.flow import Block
from pipelines.indexing.known import mark_known
from pipelines.indexing.losses import is_loss
from pipelines.indexing.plan import Request
from pipelines.indexing.rounds import Rounds
from pipelines.indexing.watch import Watch
from storage.card import Card
from storage.features.projection import fit_projection

__all__ = ["SAMPLE_IMAGES", "SampleCells", "learn_projection", "learn_projection_here", "sample_rows"]

SAMPLE_IMAGES = 64
_SPARE = 16  # for photos that cannot be used
_BATCH = 8


def learn_projection(
    ray: Any,
    listing: pa.Table,
    card: Card,
    store_uri: str,
    request: Request,
    watch: Watch,
    *,
    channels: int,
) -> NDArray[np.float32]:
    """Fit a projection to the local features of a sample of the listed images.

    The sample is decoded and extracted like the images of an index run, by one actor placed where extractors
    are, and survives the loss of nodes as they do.

    Args:
        ray: The connected `ray` module, with `ray.data` imported.
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        card: Of the store to be made; it names no projection yet.
        store_uri: Of the store to be made.
        request: What the user requested.
        watch: Looks at the cluster and tells the user.
        channels: Number of channels to keep, C'.

    Returns:
        (C, C') float32; the same for the same images and model, in whichever order they are listed.

    Raises:
        InvalidBatch: too few of the images can be used.
        PlacerayError: the model cannot be used on a worker.
        Stalled: see `Watch.look`.
    """
    rows = sample_rows(listing)
    request = dataclasses.replace(
        request,
        extractors=1,
        batch_size=_BATCH,
        trace=None,
        execution=dataclasses.replace(request.execution, compiled=False),  # not worth it for a small sample
    )
    rounds = Rounds(
        ray,
        _Planned(store_uri, card),
        request,
        watch,
        max_age_s=0.0,
        extract=SampleCells,
        sink=lambda plan: _Collector(ray),
    )
    tables = rounds.rows(rows) if rows.num_rows else ()
    return _fit((table for table in tables if table is not None), card, channels)


def learn_projection_here(
    listing: pa.Table, card: Card, model: str, execution: Execution, *, channels: int
) -> NDArray[np.float32]:
    """Do as `learn_projection`, in this process and without Ray.

    Args:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        card: Of the store to be made.
        model: Name or weights file.
        execution: How the network is run.
        channels: Number of channels to keep, C'.
    """
    rows = sample_rows(listing)
    rows = rows.append_column("number", pa.array(np.arange(rows.num_rows)))
    worker = SampleCells(model=model, store_uri="", card=card.to_json(), execution=execution)
    batches = (rows.slice(at, _BATCH).combine_chunks() for at in range(0, rows.num_rows, _BATCH))
    return _fit((worker(decode(batch, card=card.to_json())) for batch in batches), card, channels)


def _fit(tables: Iterable[pa.Table], card: Card, channels: int) -> NDArray[np.float32]:
    """Fit a projection to what `SampleCells` returns."""
    cells: dict[str, NDArray[np.float32]] = {}
    for table in tables:
        raise_failure(table)
        usable = table.filter(pc.is_valid(table["cells"]))
        for image_id, value in zip(usable["image_id"].to_pylist(), usable["cells"], strict=True):
            cells[image_id] = np.frombuffer(value.as_buffer(), np.float32).reshape(-1, card.feature_dim)
    chosen = sorted(cells, key=sample_key)[:SAMPLE_IMAGES]
    nothing = np.empty((0, card.feature_dim), np.float32)
    return fit_projection(np.concatenate([nothing, *(cells[image_id] for image_id in chosen)]), channels)


def sample_rows(listing: pa.Table) -> pa.Table:
    """Return the rows of a sample of a listing, those with the smallest hashes, as an index run has them."""
    usable = listing.filter(pc.is_null(listing["rejected"]))
    sample = Sample(SAMPLE_IMAGES + _SPARE)
    sample.add(usable["image_id"].to_pylist())
    chosen = usable.filter(pc.is_in(usable["image_id"], value_set=pa.array(sample.image_ids, pa.string())))
    return mark_known(chosen, DECODED_SCHEMA.empty_table())


class SampleCells(Extract):
    """An extractor that returns the local features themselves in `cells`, float32, of every image by itself.

    Batches of other images, which depend on the cluster, would change their last digits.
    """

    def _open(self, store_uri: str) -> None:
        """Do nothing: there is no store yet."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the columns image_id, number, failure and cells; null where an image cannot be used."""
        from models.errors import ModelFault

        batch, rows = self._usable(batch)
        cells: list[bytes | None] = [None] * batch.num_rows
        for row in rows.tolist():
            try:
                pixels = unpack_pixels(batch["pixels"].slice(row, 1), self.card)
                cells[row] = self.extractor.extract_prepared(pixels)[1].astype(np.float32).tobytes()
            except ModelFault:
                continue  # the index run itself reports it
        kept = batch.select(["image_id", "number", "failure"])
        return kept.append_column("cells", pa.array(cells, pa.large_binary()))


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A store that is still to be made."""

    uri: str
    card: Card


class _Collector:
    """Fetches the blocks of a flow to the driver."""

    full = False

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._blocks: list[Block] = []

    @property
    def pending(self) -> int:
        return sum(block.rows for block in self._blocks)

    def add(self, block: Block) -> None:
        self._blocks.append(block)

    def advance(self, *, flush: bool = False, timeout_s: float = 0.0) -> Iterator[pa.Table]:
        while self._blocks:
            yield self._ray.get(self._blocks.pop(0).ref)

    def salvage(self, timeout_s: float) -> Iterator[pa.Table]:
        while self._blocks:
            try:
                yield from self.advance()
            except Exception as error:
                if not is_loss(error):
                    raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.clear()

"""What the workers of an index run do with a batch of rows: decode, extract, write.

Plain functions over Arrow tables, without Ray. None of them raises for one bad image: it stays in the table
as a row with its reason in `rejected`, because an error would stop the whole job.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import utm
from numpy.typing import NDArray

from models.images.decoder import ImageRejected, decode_image
from models.images.photo_file import read_bytes
from models.images.preprocess import prepare
from models.runtime.execution import AS_USUAL, Execution
from pipelines.sources import LISTING_SCHEMA
from storage.card import Card
from storage.durable import local_folder
from storage.errors import OutOfSpace, PlacerayError, error_from_dict
from storage.features.encodings import open_codec
from storage.features.shards import write_shard
from storage.table.vectors import row_schema

__all__ = ["METADATA", "Extract", "InActor", "decode", "raise_failure", "span", "write"]

METADATA = ("uri", "lat", "lon", "utm_e", "utm_n", "utm_zone", "heading_deg", "captured_at")
DECODED_SCHEMA = pa.schema(
    [
        *LISTING_SCHEMA,
        ("amend", pa.bool_()),
        ("unchanged", pa.bool_()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("pixels", pa.binary()),
        ("failure", pa.string()),
    ]
)


@contextlib.contextmanager
def span(trace: str | None, stage: str, rows: int) -> Iterator[dict[str, Any]]:
    """Append to the file `trace` when a stage worked on a batch, one JSON object a line; None does nothing.

    What the caller adds to the line goes into the file too: `bytes`, the size of what it hands on. The file
    is opened to append and gets each line in one write, so that lines of several workers do not mix.
    """
    line: dict[str, Any] = {"stage": stage, "pid": os.getpid(), "begin_s": time.time(), "rows": rows}
    worked = time.process_time()
    yield line
    if trace:
        line |= {"end_s": time.time(), "cpu_s": time.process_time() - worked}
        with open(trace, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def decode(batch: pa.Table, *, card: str, trace: str | None = None, scaled: bool = False) -> pa.Table:
    """Read, hash, decode and resize the images of a batch.

    Args:
        batch: Listed rows with stored_sha256, stored_uri and amend.
        card: The model's card as JSON.
        trace: See `span`.
        scaled: Let JPEGs be decoded smaller where the network's input is smaller still.

    Returns:
        Rows with sha256, width, height and pixels: the network's input as bytes, null where the image is
        rejected or the store has it already. EXIF fills position, heading and time that the listing lacks.
    """
    made_by = Card.from_json(card)
    with span(trace, "decode", batch.num_rows) as line:
        rows = [_decode_row(row, made_by, scaled) for row in batch.to_pylist()]
        table = pa.Table.from_pylist(rows, schema=DECODED_SCHEMA)
        line["bytes"] = table.nbytes
    return table


def _decode_row(row: dict[str, Any], card: Card, scaled: bool) -> dict[str, Any]:
    row["unchanged"] = False
    if row["rejected"]:
        return row
    try:
        data = read_bytes(row["uri"])
        row["sha256"] = hashlib.sha256(data).hexdigest()
        unchanged = row["sha256"] == row["stored_sha256"]
        if unchanged and not row["amend"]:
            return row | {"unchanged": True}
        if not unchanged:
            _refuse_taken_id(row)
        size = card.preprocessing
        image = decode_image(data, least_side_px=max(size.height, size.width) if scaled else None)
        row |= {"width": image.width, "height": image.height}
        for name in ("heading_deg", "captured_at"):
            row[name] = row[name] if row[name] is not None else getattr(image, name)
        if row["lat"] is None and row["utm_e"] is None:
            row["lat"], row["lon"] = image.lat, image.lon
        row |= _both_coordinates(row)
        if unchanged:
            return row | {"unchanged": True}
        return row | {"pixels": prepare(image.pixels, card.preprocessing).tobytes()}
    except ImageRejected as error:
        return row | {"rejected": error.reason, "message": str(error)}


def _refuse_taken_id(row: dict[str, Any]) -> None:
    """Refuse a second photo under an id in use, lest two sources replace each other's photos in turns."""
    taken = row["stored_uri"]
    if taken not in (None, row["uri"]) and os.path.exists(taken):
        raise ImageRejected(
            "id_taken", f"image_id belongs to {taken}: index this source with --id-prefix to keep both"
        )


def _both_coordinates(row: dict[str, Any]) -> dict[str, Any]:
    """Complete latitude and longitude from UTM, or the other way round (WGS84)."""
    try:
        if row["utm_e"] is None and row["lat"] is not None:
            e, n, number, letter = utm.from_latlon(row["lat"], row["lon"])
            return {"utm_e": float(e), "utm_n": float(n), "utm_zone": f"{number}{letter}"}
        zone = row["utm_zone"] or ""
        if row["lat"] is None and row["utm_e"] is not None and zone[-1:].isalpha():
            lat, lon = utm.to_latlon(row["utm_e"], row["utm_n"], int(zone[:-1]), zone[-1])
            return {"lat": float(lat), "lon": float(lon)}
    except (utm.OutOfRangeError, ValueError) as error:
        # Beyond 84 N and 80 S there is no UTM; latitude and longitude alone are fine.
        if row["lat"] is None:
            raise ImageRejected("bad_value", f"UTM coordinates out of range: {error}") from error
    return {}


class InActor:
    """A stage in an actor, for long runs.

    Where there are more workers than cores, Ray ends the worker of a task that has waited for a second, and
    starts another when there is work: three seconds of a core each time. Actors stay.

    Args:
        stage: `decode` or `write`.
        options: Of the stage.
    """

    def __init__(self, stage: Callable[..., pa.Table], **options: Any) -> None:
        self._stage = partial(stage, **options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Do to a batch what the stage does."""
        return self._stage(batch)


def raise_failure(rows: pa.Table) -> None:
    """Raise what a worker reported in the column `failure`, if anything.

    Ray keeps the text of a worker's error but not its type, so what the user can mend travels as a row.

    Raises:
        PlacerayError: as reported.
    """
    reported = rows["failure"].drop_null()
    if len(reported):
        raise error_from_dict(json.loads(reported[0].as_py()))


def _failed(rows: pa.Table, error: PlacerayError) -> pa.Table:
    text = pa.array([json.dumps(error.to_dict())] * rows.num_rows)
    return rows.set_column(rows.column_names.index("failure"), "failure", text)


class Extract:
    """The model in an actor. Weights are loaded inside, so that the actor can be restarted anywhere.

    Args:
        model: Name or weights file.
        store_uri: The store, whose projection encodes the features.
        card: The card the driver agreed on, as JSON.
        threads: Torch's threads on a CPU; 0 leaves torch's own choice.
        trace: See `span`.
        execution: How to run the network.
        batch_size: Most images in a batch.

    When this machine's weights are others than the driver's, or are not to be had, the projection is damaged,
    or the network cannot be compiled here though that was asked for, every row says so.
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

        from models.feature_encoder import FeatureEncoder
        from models.weights import load_extractor

        if threads:
            torch.set_num_threads(threads)
        self.card = Card.from_json(card)
        self.trace = trace
        self.failure: PlacerayError | None = None
        try:
            size = (self.card.preprocessing.height, self.card.preprocessing.width)
            self.extractor = load_extractor(model, image_size=size, execution=execution)
            self.card.require_model(self.extractor.card)
            codec = open_codec(local_folder(store_uri), self.card)
            self.encoder = FeatureEncoder(codec, device=self.extractor.device)
            self.extractor.warm_up(batch_size)
        except PlacerayError as error:
            self.failure = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Replace pixels by descriptor and encoded features; reject an image of numbers not finite."""
        with span(self.trace, "extract", batch.num_rows) as line:
            table = self._replace_pixels(batch)
            line["bytes"] = table.nbytes
        return table

    def _replace_pixels(self, batch: pa.Table) -> pa.Table:
        if self.failure is not None:
            batch = _failed(batch, self.failure)
            batch = batch.set_column(
                batch.column_names.index("pixels"), "pixels", pa.nulls(batch.num_rows, pa.binary())
            )
        wanted = np.flatnonzero(pc.is_valid(batch["pixels"]).to_numpy(zero_copy_only=False))
        descriptors: list[NDArray[Any] | None] = [None] * batch.num_rows
        features: list[bytes | None] = [None] * batch.num_rows
        faults: dict[int, str] = {}
        if len(wanted):
            pixels = _unpack(batch["pixels"].take(pa.array(wanted)), self.card)
            for at, (descriptor, feature, fault) in zip(wanted.tolist(), self._extract(pixels), strict=True):
                descriptors[at], features[at] = descriptor, feature
                if fault:
                    faults[at] = fault
        kind = row_schema(self.card).field("descriptor").type
        table = _reject(batch.drop_columns(["pixels"]), faults, reason="model_fault")
        table = table.append_column("descriptor", pa.array(descriptors, kind))
        return table.append_column("features", pa.array(features, pa.binary()))

    def _extract(self, pixels: NDArray[Any]) -> list[tuple[NDArray[Any] | None, bytes | None, str | None]]:
        from models.extractor import ModelFault

        try:
            descriptors, rows = self.extractor.extract_encoded(pixels, self.encoder)
        except ModelFault as error:
            if len(pixels) == 1:
                return [(None, None, str(error))]
            # One image may spoil a batch: find it.
            return [row for one in pixels for row in self._extract(one[None])]
        stored = descriptors.astype(self.card.descriptor_dtype)
        return [(descriptor, row.tobytes(), None) for descriptor, row in zip(stored, rows, strict=True)]


def _unpack(column: pa.ChunkedArray, card: Card) -> NDArray[Any]:
    """Return the pixels of a column without nulls: (B, h, w, 3) uint8 or float32."""
    size = card.preprocessing
    dtype = np.uint8 if size.resize == "pil_bilinear" else np.float32
    images = [np.frombuffer(value.as_buffer(), dtype) for value in column]
    return np.stack(images).reshape(len(images), size.height, size.width, 3)


def _reject(table: pa.Table, faults: dict[int, str], *, reason: str) -> pa.Table:
    for name, text in (("rejected", reason), ("message", None)) if faults else ():
        values = table[name].to_pylist()
        for at, fault in faults.items():
            values[at] = text or fault
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


def write(batch: pa.Table, *, store_uri: str, card: str, trace: str | None = None) -> pa.Table:
    """Write the encoded features of a batch as one durable shard, and drop them.

    Args:
        batch: Extracted rows.
        store_uri: The store.
        card: The model's card as JSON.
        trace: See `span`.

    Returns:
        The rows with shard and row; both null where nothing was extracted. When the disk is full, every row
        says so in `failure`.
    """
    with span(trace, "write", batch.num_rows) as line:
        table = _write_shard(batch, store_uri, Card.from_json(card))
        line["bytes"] = table.nbytes
    return table


def _write_shard(batch: pa.Table, store_uri: str, made_by: Card) -> pa.Table:
    good = np.flatnonzero(pc.is_valid(batch["features"]).to_numpy(zero_copy_only=False))
    shards: list[str | None] = [None] * batch.num_rows
    rows: list[int | None] = [None] * batch.num_rows
    if len(good):
        chosen = batch.select(["image_id", "features"]).take(pa.array(good))
        try:
            shard = write_shard(store_uri, chosen["image_id"].to_pylist(), _joined(chosen["features"]))
            for row, at in enumerate(good.tolist()):
                shards[at], rows[at] = shard, row
        except OutOfSpace as error:
            batch = _failed(batch, error)
    types = row_schema(made_by)
    table = batch.drop_columns(["features"])
    table = table.append_column("shard", pa.array(shards, types.field("shard").type))
    return table.append_column("row", pa.array(rows, types.field("row").type))


def _joined(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return a column of equally many bytes each, without nulls, as (B, bytes), copied once at most."""
    joined = column.combine_chunks()
    _, offsets, values = joined.buffers()
    ends = np.frombuffer(offsets, np.int32)[joined.offset : joined.offset + len(joined) + 1]
    return np.frombuffer(values, np.uint8)[ends[0] : ends[-1]].reshape(len(joined), -1)

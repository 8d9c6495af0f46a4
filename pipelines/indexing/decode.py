"""First stage of an index run: read, hash, decode and resize images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from models.images import DecodedImage, ImageRejected, decode_image
from models.images.photo_file import photo_exists
from models.images.preprocess import prepare
from models.photo_limits import MAX_MEGAPIXELS, pixels_of
from pipelines.indexing.columns import DECODED_SCHEMA
from pipelines.indexing.known import THIS, UNSEEN
from pipelines.indexing.reading import read_ahead
from pipelines.indexing.trace import span
from pipelines.sources import Note, join_notes
from storage.card import Card
from storage.photos.uris import is_photo_uri
from storage.position import Position

__all__ = ["decode"]


def decode(
    batch: pa.Table,
    *,
    card: str,
    trace: str | None = None,
    scaled: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    source_options: Mapping[str, str] | None = None,
) -> pa.Table:
    """Read, hash, decode and resize the images of a batch.

    An image that cannot be used stays in the table, with its reason in `rejected`.

    Args:
        batch: Listed rows with stored_sha256, stored_uri and amend.
        card: The model's card as JSON.
        trace: File for timings, see `pipelines.indexing.trace`.
        scaled: Decode JPEGs at a reduced size where the network's input is smaller still.
        max_megapixels: Largest image, or what is decoded of it.
        source_options: Of the buckets that photos lie in.

    Returns:
        Rows of `DECODED_SCHEMA`. `pixels` is the network's input as bytes, null where the image is rejected
        or already stored. EXIF fills in position, heading and time where the listing has none.
    """
    model_card = Card.from_json(card)
    options: dict[str, Any] = {"max_pixels": pixels_of(max_megapixels)}
    if scaled:
        options["min_side_px"] = max(model_card.preprocessing.height, model_card.preprocessing.width)
    with span(trace, "decode", batch.num_rows) as line:
        listed = batch.to_pylist()
        contents = read_ahead([None if row["rejected"] else row["uri"] for row in listed], source_options)
        rows = [
            _decode_row(row, data, model_card, options, source_options)
            for row, data in zip(listed, contents, strict=True)
        ]
        table = pa.Table.from_pylist(rows, schema=DECODED_SCHEMA)
        line["bytes"] = table.nbytes
    return table


def _decode_row(
    row: dict[str, Any],
    data: bytes | ImageRejected | None,
    card: Card,
    options: dict[str, Any],
    source_options: Mapping[str, str] | None,
) -> dict[str, Any]:
    row["unchanged"] = False
    if data is None:
        return row
    try:
        if isinstance(data, ImageRejected):
            raise data
        row["sha256"] = hashlib.sha256(data).hexdigest()
        unchanged = row["sha256"] == row["stored_sha256"]
        if unchanged and not row["amend"]:
            return row | {"unchanged": True}
        if not unchanged:
            _refuse_used_id(row, source_options)
        image = decode_image(data, **options)
        row |= {"width": image.width, "height": image.height}
        for name in ("heading_deg", "captured_at"):
            if row[name] is None:
                row[name] = getattr(image, name)
        if row["lat"] is None and row["utm_e"] is None:
            row["lat"], row["lon"] = image.lat, image.lon
        row["notes"] = join_notes(_notes(row, image), row["notes"])
        row |= _completed_position(row)
        if unchanged:
            return row | {"unchanged": True}
        return row | {"pixels": prepare(image.pixels, card.preprocessing).tobytes()}
    except ImageRejected as error:
        hint = ""
        is_listed = os.path.isfile(row.get("source") or "") and not is_photo_uri(row["uri"])
        if error.reason == "missing" and is_listed:
            hint = ": give the folder of the photos with --root"
        if error.reason == "too_many_pixels" and "min_side_px" not in options:
            hint = "; --scaled-decode decodes JPEGs that are not progressive at a reduced size"
        return row | {"rejected": error.reason, "message": f"{error}{hint}"}


def _notes(row: dict[str, Any], image: DecodedImage) -> list[Note]:
    """Return notes on the values of EXIF that were dropped where nothing else gives them."""
    known = {"lat": row["lat"] is not None or row["utm_e"] is not None}
    return [
        Note(reason, message)
        for fact, reason, message in image.dropped
        if not known.get(fact, row[fact] is not None)
    ]


def _refuse_used_id(row: dict[str, Any], source_options: Mapping[str, str] | None) -> None:
    """Refuse a second photo under an id in use: otherwise two sources would replace each other's photos.

    A photo of the same source replaces the former one, and so does one of a source that the store knows where
    the other photo is gone.
    """
    stored_uri, owner = row["stored_uri"], row.get("owner")
    if stored_uri in (None, row["uri"]) or owner == THIS:
        return
    if owner == UNSEEN or photo_exists(stored_uri, source_options):
        raise ImageRejected(
            "id_taken", f"image_id belongs to {stored_uri}: index this source with --id-prefix to keep both"
        )


def _completed_position(row: dict[str, Any]) -> dict[str, Any]:
    """Return the position in degrees and in UTM, as far as one follows from the other."""
    position = Position.of(row)
    try:
        completed = position.completed()
        if completed.lat is not None and abs(completed.lat) > 90:
            raise ValueError("beyond the poles")
        return completed.to_dict()
    except ValueError as error:
        # UTM is undefined beyond 84 N and 80 S; latitude and longitude alone are valid.
        if position.lat is None:
            raise ImageRejected("bad_value", f"UTM coordinates out of range: {error}") from error
        return {}

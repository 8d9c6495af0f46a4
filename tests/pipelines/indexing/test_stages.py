"""The stages of an index run as plain functions over tables."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import utm

from models.extractor import Extractor
from models.runtime.compiled import CannotCompile
from models.runtime.execution import Execution, execution_of
from models.weights import load_extractor
from pipelines.indexing.decode import decode
from pipelines.indexing.extract import Extract
from pipelines.indexing.failures import raise_failure
from pipelines.indexing.write import write
from pipelines.sources import LISTING_SCHEMA, list_source
from storage.card import Card
from storage.errors import CorruptStore
from storage.store import Store
from tests.support.pictures import broken_files, photo, write_photos

WORK_SCHEMA = pa.schema(
    [*LISTING_SCHEMA, ("stored_sha256", pa.string()), ("stored_uri", pa.string()), ("amend", pa.bool_())]
)


@pytest.fixture(scope="module")
def card() -> Card:
    return load_extractor("efficientnet-lite0").card


def work(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{"amend": False, **row} for row in rows], schema=WORK_SCHEMA)


def decoded(card: Card, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    table = decode(work(*rows), card=card.to_json())
    listed: list[dict[str, Any]] = table.to_pylist()
    return listed


def exif_gps(lat: float, lon: float) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    gps.update({1: "S" if lat < 0 else "N", 2: (abs(lat), 0.0, 0.0), 3: "W" if lon < 0 else "E"})
    gps[4] = (abs(lon), 0.0, 0.0)
    return exif.tobytes()


def test_decode_good_image_carries_hash_size_and_pixels(card: Card, tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, 1)
    (row,) = decoded(card, {"image_id": "a", "uri": str(path)})
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row["width"], row["height"], row["rejected"]) == (96, 72, None)
    assert len(row["pixels"]) == 224 * 224 * 3
    assert np.frombuffer(row["pixels"], np.uint8).std() > 10


def test_decode_scaled_gives_nearly_the_same_descriptor(card: Card, tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, 1, size=(960, 720))
    table = work({"image_id": "a", "uri": str(path)})
    exact, scaled = (decode(table, card=card.to_json(), scaled=on).to_pylist()[0] for on in (False, True))
    assert {k: v for k, v in exact.items() if k != "pixels"} == {
        k: v for k, v in scaled.items() if k != "pixels"
    }
    assert (scaled["width"], scaled["height"]) == (960, 720)
    assert exact["pixels"] != scaled["pixels"]
    prepared = [np.frombuffer(row["pixels"], np.uint8).reshape(224, 224, 3) for row in (exact, scaled)]
    one, other = load_extractor("efficientnet-lite0").extract_prepared(prepared)[0]
    assert one @ other > 0.99


def test_decode_broken_files_each_rejected_with_its_reason(card: Card, tmp_path: Path) -> None:
    expected = {}
    for name, (data, reason) in broken_files().items():
        (tmp_path / name).write_bytes(data)
        expected[name] = reason
    listing = list_source(tmp_path)
    rows = decoded(card, *listing.to_pylist())
    assert {row["image_id"]: row["rejected"] for row in rows} == expected
    assert all(row["pixels"] is None and row["message"] for row in rows)


def test_decode_same_content_is_unchanged_and_not_decoded(card: Card, tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, 1)
    known = {"stored_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "stored_uri": str(path)}
    (row,) = decoded(card, {"image_id": "a", "uri": str(path), **known})
    assert row["unchanged"]
    assert row["pixels"] is None
    path.write_bytes(photo(99))
    (row,) = decoded(card, {"image_id": "a", "uri": str(path), **known})
    assert not row["unchanged"]
    assert row["pixels"]


def test_decode_id_of_another_existing_photo_is_refused(card: Card, tmp_path: Path) -> None:
    first, second = write_photos(tmp_path, 2)
    known = {"stored_sha256": hashlib.sha256(first.read_bytes()).hexdigest(), "stored_uri": str(first)}
    (row,) = decoded(card, {"image_id": "a", "uri": str(second), **known})
    assert row["rejected"] == "id_taken"
    first.unlink()
    (row,) = decoded(card, {"image_id": "a", "uri": str(second), **known})
    assert row["rejected"] is None


def test_decode_exif_position_fills_what_the_listing_lacks(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "gps.jpg"
    path.write_bytes(photo(5, exif=exif_gps(-33.5, 151.25)))
    (row,) = decoded(card, {"image_id": "a", "uri": str(path)})
    east, north, number, letter = utm.from_latlon(-33.5, 151.25)
    assert (row["lat"], row["lon"], row["utm_zone"]) == (-33.5, 151.25, f"{number}{letter}")
    assert (row["utm_e"], row["utm_n"]) == pytest.approx((east, north))
    (row,) = decoded(card, {"image_id": "a", "uri": str(path), "lat": 10.0, "lon": 20.0})
    assert (row["lat"], row["lon"]) == (10.0, 20.0)


def test_decode_utm_with_zone_gives_latitude(card: Card, tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, 1)
    east, north, number, letter = utm.from_latlon(48.2, 16.37)
    place = {"utm_e": east, "utm_n": north, "utm_zone": f"{number}{letter}"}
    (row,) = decoded(card, {"image_id": "a", "uri": str(path), **place})
    assert (row["lat"], row["lon"]) == pytest.approx((48.2, 16.37), abs=1e-6)
    for wrong in ({"utm_e": 5.0}, {"utm_n": 9_980_000.0, "utm_zone": "17S"}):
        (row,) = decoded(card, {"image_id": "a", "uri": str(path), **place, **wrong})
        assert row["rejected"] == "bad_value"


def test_decode_missing_file_of_a_listing_names_the_root(card: Card, tmp_path: Path) -> None:
    listing = tmp_path / "l.csv"
    listing.write_text("path\nphotos/a.jpg\n")
    (row,) = decoded(card, *list_source(listing).to_pylist())
    assert row["rejected"] == "missing"
    assert "--root" in row["message"]


def make_extract(card: Card, store: Path, **options: Any) -> Extract:
    return Extract(model="efficientnet-lite0", store_uri=str(store), card=card.to_json(), **options)


def test_extract_damaged_projection_is_reported_in_every_row(card: Card, tmp_path: Path) -> None:
    named = card.stored_as("int4-pca64", projection_sha256="0" * 64)
    stage = make_extract(named, tmp_path)
    (path,) = write_photos(tmp_path, 1)
    table = stage(decode(work({"image_id": "a", "uri": str(path)}), card=named.to_json()))
    assert table["features"].to_pylist() == [None]
    with pytest.raises(CorruptStore, match="projection"):
        raise_failure(table)


def test_extract_and_write_mixed_batch_stores_the_outputs_of_the_model(card: Card, tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", 3)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"x")
    store = Store.create(str(tmp_path / "store"), card)
    rows = [
        {"image_id": path.name, "uri": str(path)}
        for path in [*paths[:2], tmp_path / "photos/bad.jpg", paths[2]]
    ]
    extracted = make_extract(card, tmp_path / "store")(decode(work(*rows), card=card.to_json()))
    assert extracted["descriptor"].null_count == 1
    written = write(extracted, store_uri=store.uri, card=card.to_json())
    assert "features" not in written.column_names
    assert written["row"].to_pylist() == [0, 1, None, 2]
    assert written["rejected"].to_pylist() == [None, None, "not_an_image", None]

    extractor = load_extractor("efficientnet-lite0")
    from models.images.decoder import decode_image

    descriptors, features = extractor.extract([decode_image(paths[2].read_bytes()).pixels])
    row = written.slice(3, 1).to_pylist()[0]
    assert np.allclose(row["descriptor"], descriptors[0], atol=2e-3)
    with store.lease():
        store.commit(_storable(written, card))
    (record,) = store.get([paths[2].name])
    stored, ok = store.fetch([record])
    assert ok.all()
    assert np.abs(stored[0].astype(np.float32) - features[0]).max() < 2e-3


def test_extract_fault_in_one_image_rejects_that_one(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.errors import ModelFault

    paths = write_photos(tmp_path, 3)
    stage = make_extract(card, tmp_path)
    real = stage.extractor.encoded_extraction
    batch = decode(work(*({"image_id": p.name, "uri": str(p)} for p in paths)), card=card.to_json())
    spoilt = np.frombuffer(batch["pixels"][1].as_py(), np.uint8)[:100]

    def faulty(pixels: Any, encode: Any) -> Any:
        if any(np.array_equal(image.reshape(-1)[:100], spoilt) for image in pixels):
            raise ModelFault("not finite")
        return real(pixels, encode)

    monkeypatch.setattr(stage.extractor, "encoded_extraction", faulty)
    table = stage(batch)
    assert table["rejected"].to_pylist() == [None, "model_fault", None]
    assert [value is None for value in table["descriptor"].to_pylist()] == [False, True, False]


def test_extract_failed_compilation_is_reported_in_every_row(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Extractor, largest: int) -> None:
        raise CannotCompile("install a C compiler")

    monkeypatch.setattr(Extractor, "warm_up", refused)
    stage = make_extract(card, tmp_path, execution=Execution(compiled=True))
    (path,) = write_photos(tmp_path, 1)
    table = stage(decode(work({"image_id": "a", "uri": str(path)}), card=card.to_json()))
    assert table["descriptor"].to_pylist() == [None]
    with pytest.raises(CannotCompile, match="install a C compiler"):
        raise_failure(table)


def test_extract_runs_in_the_requested_precision(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.runtime.execution.native_dtype", lambda _: torch.bfloat16)
    (path,) = write_photos(tmp_path, 1)
    batch = decode(work({"image_id": "a", "uri": str(path)}), card=card.to_json())
    descriptors = {}
    for precision in ("fp32", "bf16"):
        execution = execution_of({"precision": precision})
        stage = make_extract(card, tmp_path, execution=execution)
        descriptors[precision] = np.array(stage(batch)["descriptor"].to_pylist()[0])
    assert float(descriptors["fp32"] @ descriptors["bf16"]) > 0.995
    assert not np.array_equal(descriptors["fp32"], descriptors["bf16"])


def _storable(rows: pa.Table, card: Card) -> pa.Table:
    from storage.table.schema import row_schema

    schema = row_schema(card)
    return rows.filter(pa.compute.is_valid(rows["shard"])).select(schema.names).cast(schema)

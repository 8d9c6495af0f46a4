"""Photos and listings in buckets: what is listed, under which id, and what is refused."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import LISTING_SCHEMA, SourceError, list_source
from storage.objects.errors import BucketNotFound, SecretInOptions, StorageForbidden
from tests.support.bucket_photos import put_objects
from tests.support.fault_proxy import FaultProxy
from tests.support.object_servers import KEY_ID, SECRET

STANDARD = "@0584286.37@4477236.93@17@T@040.44229@-079.99@pano@00@90.5@12@0@3@201311@night@.jpg"


def rows(source: str | Path, **options: Any) -> list[dict[str, Any]]:
    table = list_source(source, **options)
    assert table.schema == LISTING_SCHEMA
    listed: list[dict[str, Any]] = table.to_pylist()
    return listed


@pytest.fixture
def prefix(moto_url: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of its own, on a server that the environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return uuid.uuid4().hex


def test_a_prefix_is_a_folder(moto_url: str, prefix: str) -> None:
    names = [f"b/{STANDARD}", "a/2.JPG", "a/10.png", "a/notes.txt", ".hidden/3.jpg", "a/.4.jpg", "a b#ü.jpg"]
    put_objects(moto_url, {f"{prefix}/city/{name}": b"x" for name in names})
    put_objects(moto_url, {f"{prefix}/city2/1.jpg": b"x"})
    listed = rows(f"s3://placeray/{prefix}/city/", id_prefix="x/")
    assert {row["image_id"] for row in listed} == {
        f"x/b/{STANDARD}",
        "x/a/2.JPG",
        "x/a/10.png",
        "x/a b#ü.jpg",
    }
    by_id = {row["image_id"]: row for row in listed}
    assert by_id[f"x/b/{STANDARD}"]["utm_zone"] == "17T"
    assert by_id["x/a b#ü.jpg"]["uri"] == f"s3://placeray/{prefix}/city/a b%23ü.jpg"
    assert {row["source"] for row in listed} == {f"s3://placeray/{prefix}/city"}
    with pytest.raises(SourceError):
        rows(f"s3://placeray/{prefix}/none")
    with pytest.raises(BucketNotFound):
        rows(f"s3://none-{prefix}/city")


def test_options_of_the_address_are_not_stored(moto_url: str, credentials: None) -> None:
    name = uuid.uuid4().hex
    put_objects(moto_url, {f"{name}/1.jpg": b"x"})
    for source, options in (
        (f"s3://placeray/{name}?endpoint={moto_url}", None),
        (f"s3://placeray/{name}", {"endpoint": moto_url}),
    ):
        (row,) = rows(source, options=options)
        assert (row["uri"], row["source"]) == (f"s3://placeray/{name}/1.jpg", f"s3://placeray/{name}")
    with pytest.raises(SecretInOptions) as raised:
        rows(f"s3://placeray/{name}?secret_access_key=hunter2")
    assert "hunter2" not in str(raised.value)


def test_a_local_listing_names_objects_of_any_scheme_beside_files(tmp_path: Path) -> None:
    (tmp_path / "local.jpg").write_bytes(b"x")
    listing = tmp_path / "city.csv"
    uris = [
        "local.jpg",
        "s3://one/a b.jpg",
        "gs://two/b.jpg",
        "az://three/c.jpg",
        "s3://u:p@one/d.jpg",
        "s3://one",
    ]
    listing.write_text("uri,lat,lon\n" + "".join(f"{uri},48,11\n" for uri in uris))
    listed = rows(listing)
    assert [row["rejected"] for row in listed] == [None] * 4 + ["unsupported_uri"] * 2
    assert [row["image_id"] for row in listed[:4]] == uris[:4]
    assert [row["uri"] for row in listed[:4]] == [str(tmp_path / "local.jpg"), *uris[1:4]]
    assert all(row["lat"] == 48 for row in listed[:4])
    assert "u:p" not in str(listed[4])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_listing_in_a_bucket_has_paths_below_its_own_prefix(
    moto_url: str, prefix: str, tmp_path: Path, suffix: str
) -> None:
    names = [
        "sub/1.jpg",
        "s3://elsewhere/2.jpg",
        "/etc/passwd",
        "../3.jpg",
        "file:///etc/passwd",
        f"a/{STANDARD}",
    ]
    table = pa.table(
        {"path": names, "lat": [48.0, 49.0, None, None, None, None], "lon": [11.0] * 2 + [None] * 4}
    )
    path = tmp_path / f"city{suffix}"
    if suffix == ".csv":
        path.write_text(
            "path,lat,lon\n"
            + "\n".join(f"{r['path']},{r['lat'] or ''},{r['lon'] or ''}" for r in table.to_pylist())
        )
    else:
        pq.write_table(table, path)
    put_objects(moto_url, {f"{prefix}/city{suffix}": path.read_bytes()})
    listed = rows(f"s3://placeray/{prefix}/city{suffix}")
    assert [row["rejected"] is None for row in listed] == [True, True, False, False, False, True]
    assert [row["image_id"] for row in listed[:2]] == names[:2]
    assert listed[0]["uri"] == f"s3://placeray/{prefix}/sub/1.jpg"
    assert listed[0]["source"] == f"s3://placeray/{prefix}/city{suffix}"
    assert (listed[0]["lat"], listed[5]["utm_zone"]) == (48.0, "17T")
    other = rows(f"s3://placeray/{prefix}/city{suffix}", root="s3://photos/2024")
    assert other[0]["uri"] == "s3://photos/2024/sub/1.jpg"
    assert rows(path, root="s3://photos/2024")[0]["uri"] == "s3://photos/2024/sub/1.jpg"


def test_a_listing_in_a_bucket_that_is_missing_or_foreign_is_named(moto_url: str, prefix: str) -> None:
    put_objects(moto_url, {f"{prefix}/a.csv": b"PK\x03\x04....", f"{prefix}/b.csv": b"a,b\n1,2\n"})
    for name in ("a.csv", "b.csv", "none.csv", "none.parquet"):
        with pytest.raises(SourceError) as raised:
            rows(f"s3://placeray/{prefix}/{name}")
        assert str(raised.value).startswith(f"s3://placeray/{prefix}/{name}")


def test_a_forbidden_prefix_ends_with_the_reason(faulty: FaultProxy) -> None:
    faulty.fail("403")
    with pytest.raises(StorageForbidden) as raised:
        rows("s3://placeray/photos", options={"endpoint": faulty.url})
    assert SECRET not in str(raised.value)
    assert KEY_ID not in str(raised.value)
    assert raised.value.exit_code == 9

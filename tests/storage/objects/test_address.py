"""Addresses of buckets and their options; a secret among them is refused and not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import StoreError
from storage.objects.address import BucketAddress, is_bucket_uri, require_no_secret, with_options
from storage.objects.errors import SecretInOptions, UnknownStorageOption
from storage.objects.location import open_location


def test_an_address_and_its_options() -> None:
    address = BucketAddress.parse("s3://city-photos/a/b=1/?endpoint=http://127.0.0.1:8333&region=eu-west-1")
    assert (address.scheme, address.bucket, address.prefix) == ("s3", "city-photos", "a/b=1")
    assert address.options == {"endpoint": "http://127.0.0.1:8333", "region": "eu-west-1"}
    assert address.shown == "s3://city-photos/a/b=1"
    assert BucketAddress.parse(address.uri) == address
    assert BucketAddress.parse("az://photos").prefix == ""


def test_options_join_an_address() -> None:
    uri = with_options("s3://bucket/x?region=a", {"aws_endpoint_url": "https://s.example", "region": "b"})
    assert uri == "s3://bucket/x?endpoint=https://s.example&region=b"
    assert with_options("/a/folder", {}) == "/a/folder"
    with pytest.raises(UnknownStorageOption, match="is a folder"):
        with_options("/a/folder", {"region": "b"})


@pytest.mark.parametrize(
    "name",
    ["secret_access_key", "AWS_ACCESS_KEY_ID", "aws_session_token", "account_key", "sas_token", "password"],
)
@pytest.mark.parametrize("uri", ["s3://bucket/x", "az://bucket/x", "gs://bucket/x", "/a/folder"])
def test_a_secret_is_refused_with_its_variable_and_never_repeated(uri: str, name: str) -> None:
    for act in (
        lambda: with_options(uri, {name: "hunter2"}),
        lambda: open_location(uri, {name: "hunter2"}),
        lambda: (
            open_location(f"{uri}?{name}=hunter2") if "://" in uri else with_options(uri, {name: "hunter2"})
        ),
    ):
        with pytest.raises(SecretInOptions) as raised:
            act()
        assert "hunter2" not in str(raised.value)
        assert raised.value.exit_code == 2
        assert any(
            word in str(raised.value) for word in ("AWS_SECRET", "AZURE_STORAGE", "GOOGLE_APPLICATION")
        )


@pytest.mark.parametrize(
    "uri", ["s3://user:hunter2@bucket/x", "s3://bucket/x?endpoint=http://user:hunter2@host/"]
)
def test_a_password_in_an_address_is_refused(uri: str) -> None:
    with pytest.raises(SecretInOptions) as raised:
        open_location(uri)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("s3://", "write it as"),
        ("s3://B_cket/x", "write it as"),
        ("s3://bucket/../x", "is not a prefix"),
        ("s3://bucket/a//b", "is not a prefix"),
        ("s3://bucket/%0a", "is not a prefix"),
        ("s3://bucket/x?colour=red", "there is no storage option"),
        ("s3://bucket/x?timeout_s=-1", "number from"),
        ("s3://bucket/x?endpoint=127.0.0.1", "is a URL"),
        ("az://bucket/x?use_emulator=maybe", "true or false"),
        ("ftp://bucket/x", "s3://"),
    ],
)
def test_other_addresses_are_refused(uri: str, text: str) -> None:
    with pytest.raises(StoreError, match=text) as raised:
        open_location(uri)
    assert raised.value.exit_code == 2


def test_folders_stay_folders(tmp_path: Path) -> None:
    assert open_location(tmp_path) == tmp_path
    assert open_location(f"file://{tmp_path}") == tmp_path
    assert not is_bucket_uri(tmp_path)
    assert not is_bucket_uri("s3")


@pytest.mark.parametrize(
    "uri", ["s3://me@bucket/x", "gs://b/x?access_token=hunter2", "abfss://c:hunter2@a.dfs.core.windows.net/x"]
)
def test_a_secret_in_an_address_of_another_library_is_refused(uri: str) -> None:
    with pytest.raises(SecretInOptions) as caught:
        require_no_secret(uri)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["/a/folder", "s3://bucket/x?region=eu-west-1", "abfss://container@account.dfs.core.windows.net/x"]
)
def test_an_address_without_a_secret_passes(uri: str) -> None:
    require_no_secret(uri)

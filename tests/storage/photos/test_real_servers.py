"""Photos in buckets on servers that check signatures: SeaweedFS and Azurite."""

from __future__ import annotations

from dataclasses import replace

import obstore
import pytest

from storage.objects.address import BucketAddress
from storage.objects.bucket import open_client
from storage.objects.source_bucket import RETRIES, open_source_bucket
from storage.photos.errors import PhotoUnavailable
from storage.photos.reading import place_exists, read_photo
from storage.photos.uris import ByteSpan, with_part

pytestmark = pytest.mark.cluster


def test_photos_are_listed_and_read(real_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = BucketAddress.parse(real_uri)
    options = dict(address.options)
    client = open_client(replace(address, prefix=""))
    prefix = address.prefix
    names = [f"{prefix}/north/{number}.jpg" for number in range(5)] + [f"{prefix}/south/a b#ü.jpg"]
    for name in names:
        obstore.put(client, name, name.encode())
    bucket = open_source_bucket(address.scheme, address.bucket, options)
    listed = [each for page in bucket.pages(prefix) for each in page]
    assert sorted(listed) == sorted((name, len(name.encode())) for name in names)
    uri = f"{address.scheme}://{address.bucket}/{names[3]}"
    assert read_photo(uri, 100, options) == names[3].encode()
    assert read_photo(with_part(uri, ByteSpan(3, 4)), 100, options) == names[3].encode()[3:7]
    assert place_exists(uri, options)
    assert not place_exists(f"{uri}.none", options)
    for wanted, reason in ((f"{uri}.none", "missing"), (uri, "forbidden")):
        if reason == "forbidden":
            for variable in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"):
                monkeypatch.setenv(variable, "d3Jvbmc=")
            monkeypatch.setitem(RETRIES, "max_retries", 1)
            options["timeout_s"] = "7"  # else the connections of before are used
        with pytest.raises(PhotoUnavailable) as raised:
            read_photo(wanted, 100, options)
        assert raised.value.reason == reason

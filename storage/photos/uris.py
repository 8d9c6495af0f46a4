"""URIs of photos: of an object in a bucket, and of a part of a file or object that holds many photos.

An object is `s3://bucket/key`, with the characters `%`, `?` and `#` of its key percent-encoded and without
options: which server is asked is for whoever reads to say, not for a row of a store. A part of a container
follows `#`: `bytes=512-2047` of a tar file, the form of HTTP ranges; `row=000000017&column=image` of a
Parquet file, with `&version=3` of a Lance data set. A container on local disk is
`file:///folder/a.tar#bytes=512-2047`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

from storage.objects.address import BUCKET_NAME, SCHEMES, is_bucket_uri

__all__ = ["ByteSpan", "ObjectUri", "PhotoUri", "TableCell", "is_photo_uri", "local_container", "with_part"]

MAX_KEY_BYTES = 1024  # of S3, Azure and Google
_RESERVED = re.compile("[%?#]")
_SPAN = re.compile(r"bytes=(\d{1,18})-(\d{1,18})", re.ASCII)
_FILE = "file://"


class ByteSpan(NamedTuple):
    """A range of bytes.

    Attributes:
        start: First byte.
        length: Number of bytes.
    """

    start: int
    length: int

    def __str__(self) -> str:
        return f"bytes={self.start}-{self.start + self.length - 1}"


class TableCell(NamedTuple):
    """A value of a table.

    Attributes:
        row: Counted from 0 over the whole table.
        column: Name; of a field inside of it after a dot.
        version: Of a Lance data set; None of a Parquet file.
    """

    row: int
    column: str
    version: int | None = None

    def __str__(self) -> str:
        version = {} if self.version is None else {"version": self.version}
        # Of equal length, so that the rows of a table stay together where URIs are sorted.
        return urlencode({"row": f"{self.row:09}", "column": self.column, **version})


@dataclass(frozen=True)
class ObjectUri:
    """The name of an object in a bucket.

    Attributes:
        scheme: One of `SCHEMES`.
        bucket: Bucket or container.
        key: Of the object; empty: the whole bucket.
    """

    scheme: str
    bucket: str
    key: str

    @classmethod
    def from_text(cls, text: str) -> ObjectUri:
        """Read an address as people and programs write it, whose key is taken as it stands.

        Raises:
            ValueError: it is not an address that can be asked for; what is said repeats no user or password.
        """
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        return cls(scheme, bucket, key.strip("/"))._checked()

    @classmethod
    def parse(cls, uri: str) -> ObjectUri:
        """Read an address that `str` wrote.

        Raises:
            ValueError: it is not one.
        """
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if "?" in key or "#" in key:
            raise ValueError("the address has options, which a photo's cannot have")
        return cls(scheme, bucket, unquote(key).strip("/"))._checked()

    def __str__(self) -> str:
        key = _RESERVED.sub(lambda found: quote(found[0]), self.key)
        return f"{self.scheme}://{self.bucket}" + (f"/{key}" if key else "")

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def _checked(self) -> ObjectUri:
        if "@" in self.bucket:
            raise ValueError("the address contains a user or a password: leave them out")
        if self.scheme not in SCHEMES or not BUCKET_NAME.fullmatch(self.bucket):
            raise ValueError("the address is not of the form s3://bucket/key")
        if len(self.key.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"the key has more than {MAX_KEY_BYTES} bytes")
        parts = self.key.split("/") if self.key else []
        if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
            raise ValueError("a key with empty parts, '.', '..' or control characters cannot be read")
        return self


@dataclass(frozen=True)
class PhotoUri:
    """Where a photo's bytes lie.

    Attributes:
        place: The object, or the path of a local file.
        part: What of it; None: all of it.
    """

    place: ObjectUri | str
    part: ByteSpan | TableCell | None = None

    @classmethod
    def parse(cls, uri: str) -> PhotoUri:
        """Read the `uri` of a listed or stored photo.

        Raises:
            ValueError: it is not one.
        """
        if not is_photo_uri(uri):
            return cls(uri)
        base, _, fragment = uri.partition("#")
        part = _part(fragment) if fragment else None
        if is_bucket_uri(base):
            return cls(ObjectUri.parse(base), part)
        path = unquote(base[len(_FILE) :])
        if not path.startswith("/") or "\0" in path:
            raise ValueError("the path in it is not absolute")
        return cls(path, part)

    @property
    def shown(self) -> str:
        """The file or object, for messages."""
        return str(self.place)


def is_photo_uri(uri: str) -> bool:
    """Return whether a photo lies elsewhere than in a file of its own on this machine."""
    return is_bucket_uri(uri) or (uri.startswith(_FILE) and "#" in uri)


def local_container(path: str) -> str:
    """Return the URI of a file or folder on this machine that holds many photos, for `with_part`."""
    return _FILE + quote(path, safe="/ !$&'()*+,;=:@~-._")


def with_part(container: str, part: ByteSpan | TableCell) -> str:
    """Return the URI of a photo in a container."""
    return f"{container}#{part}"


def _part(fragment: str) -> ByteSpan | TableCell:
    if (span := _SPAN.fullmatch(fragment)) is not None:
        start, last = int(span[1]), int(span[2])
        if last < start:
            raise ValueError("the range of bytes ends before it starts")
        return ByteSpan(start, last - start + 1)
    values = dict(parse_qsl(fragment, max_num_fields=3))
    row, column, version = values.get("row", ""), values.get("column", ""), values.get("version")
    numbers = [row] if version is None else [row, version]
    if not column or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ValueError("what follows # is neither bytes=FIRST-LAST nor row=NUMBER&column=NAME")
    return TableCell(int(row), column, None if version is None else int(version))

"""Tar shards in the form of WebDataset: photos, each beside a JSON file of the same name with its facts.

Of a shard only headers and JSON files are read; photos are read later by their range of bytes. Files that
belong together follow each other and share their name up to the first dot of its last part.
"""

from __future__ import annotations

import functools
import json
import os
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from pipelines.sources.columns import Column, map_columns, pick
from pipelines.sources.errors import SourceError
from pipelines.sources.folders import IMAGE_SUFFIXES
from pipelines.sources.links import is_hidden
from pipelines.sources.paths import clean
from pipelines.sources.photo_rows import member_row
from pipelines.sources.source_file import SourceFile
from storage.photos.uris import ByteSpan

__all__ = ["read_tar"]

MAX_JSON_BYTES, MAX_HEADER_BYTES = 256 << 10, 1 << 20
MAX_FORGOTTEN = 1_000  # members that tarfile remembers


def read_tar(file: SourceFile) -> Iterator[dict[str, Any]]:
    """Yield a row for each photo of a shard, by our column names and with `photo`.

    A shard that cannot be read, or not to its end, is one more row, with `unreadable`.
    """
    sample = _Sample(file)
    try:
        with file.open() as raw, tarfile.open(fileobj=_Bounded(raw), mode="r:") as tar:  # type: ignore[call-overload]
            for count, member in enumerate(tar):
                if count % MAX_FORGOTTEN == 0:
                    tar.members = []
                if not member.isreg() or member.issparse():
                    continue
                yield from sample.add(tar, member)
        yield from sample.end()
    except FileNotFoundError:
        yield _unreadable(file, "missing", "there is no such shard")
    except (tarfile.TarError, OSError, ValueError) as error:
        yield from sample.end()
        yield _unreadable(
            file, "truncated", f"the shard cannot be read to its end ({clean(str(error))[:200]})"
        )


class _Sample:
    """The members that share a name: any number of photos, and the facts of all of them."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._key = ""
        self._photos: list[tuple[str, ByteSpan]] = []
        self._facts: dict[str, Any] = {}

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[dict[str, Any]]:
        """Take a member; yield the rows of the sample before, where a new one begins."""
        name = clean(member.name).removeprefix("./")
        folder, _, base = name.rpartition("/")
        if not base or any(map(is_hidden, filter(None, name.split("/")))):
            return
        # Names of the standard layout have dots in their numbers.
        stem = os.path.splitext(base)[0] if base.startswith("@") else base.partition(".")[0]
        key = f"{folder}/{stem}"
        if key != self._key:
            yield from self.end()
            self._key = key
        suffix = os.path.splitext(base)[1].lower()
        if suffix in IMAGE_SUFFIXES:
            self._photos.append((name, ByteSpan(member.offset_data, member.size)))
        elif suffix == ".json" and member.size <= MAX_JSON_BYTES:
            content = tar.extractfile(member)
            self._facts |= _facts(content.read() if content else b"", self._file)

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the sample."""
        for name, span in self._photos:
            facts = dict(self._facts)
            if len(self._photos) > 1:  # an id is that of one photo
                facts.pop("image_id", None)
            yield member_row(facts, self._file, name, span)
        self._photos, self._facts = [], {}


class _Bounded:
    """A file of which no single read takes more than a header may have."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes.

        Raises:
            tarfile.ReadError: more than a header or a JSON file has are wanted.
        """
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return self._file.read(size)


def _facts(content: bytes, file: SourceFile) -> dict[str, Any]:
    """Return the values of a JSON object by our names, as those of a listing; nothing of anything else."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    columns = _columns(tuple(values), str(file))
    found = pick(columns, list(values.values()))
    return {name: value for name, value in found.items() if name != "uri"}


@functools.lru_cache(maxsize=64)
def _columns(header: tuple[str, ...], name: str) -> dict[str, list[Column]]:
    try:
        return map_columns(list(header), name, needs_paths=False)[0]
    except SourceError:  # several keys for one thing
        return {}


def _unreadable(file: SourceFile, reason: str, message: str) -> dict[str, Any]:
    return {"uri": str(file), "photo": file.container, "photo_id": file.id_part, "refused": (reason, message)}

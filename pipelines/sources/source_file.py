"""One file that lists or holds photos: on local disk, or an object of a bucket."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from storage.durable import explain_write_errors
from storage.objects.source_bucket import open_source_bucket
from storage.photos.ranged_file import RangedFile
from storage.photos.table_cells import open_parquet
from storage.photos.uris import ObjectUri, local_container

__all__ = ["SourceFile"]

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class SourceFile:
    """A file of a source; `str` names it for messages.

    Attributes:
        place: Its path, or the object.
        options: Of buckets, see `storage.objects.source_bucket.open_source_bucket`.
        label: What ids of its photos begin with; default: its name.
    """

    place: Path | ObjectUri
    options: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    def __str__(self) -> str:
        return str(self.place)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.place.name

    @property
    def id_part(self) -> str:
        """What ids of its photos begin with."""
        return self.label or self.name

    @property
    def suffix(self) -> str:
        """Suffix of the name in lower case, with its dot."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def container(self) -> str:
        """Its URI as a container of photos, for `storage.photos.uris.with_part`."""
        return local_container(str(self.place)) if isinstance(self.place, Path) else str(self.place)

    @cached_property
    def size(self) -> int:
        """Its size in bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if isinstance(self.place, Path):
            return self.place.stat().st_size
        return open_source_bucket(self.place.scheme, self.place.bucket, self.options).size(self.place.key)

    def open(self) -> IO[bytes]:
        """Open it for reading; in a bucket it is read by ranges.

        Raises:
            OSError: it cannot be opened.
        """
        if isinstance(self.place, Path):
            return self.place.open("rb")
        bucket = open_source_bucket(self.place.scheme, self.place.bucket, self.options)
        return cast("IO[bytes]", RangedFile(bucket, self.place.key, self.size))

    def parquet(self, **reading: Any) -> Any:
        """Open it as a `pyarrow.parquet.ParquetFile`, with options of that."""
        place = str(self.place) if isinstance(self.place, Path) else self.place
        return open_parquet(place, self.options, **reading)

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield a local file with its contents: itself, or a temporary copy.

        Raises:
            OutOfSpace: the disk is full.
        """
        if isinstance(self.place, Path):
            yield self.place
            return
        folder = Path(tempfile.mkdtemp(prefix="placeray-listing-"))
        try:
            path = folder / self.name
            bucket = open_source_bucket(self.place.scheme, self.place.bucket, self.options)
            with explain_write_errors(path, self.size), path.open("wb") as file:
                for start in range(0, self.size, CHUNK_BYTES):
                    file.write(bucket.get_range(self.place.key, start, CHUNK_BYTES))
            yield path
        finally:
            shutil.rmtree(folder, ignore_errors=True)

"""Files that hold a listing or photos: CSV, Parquet, tar shards and Lance data sets, one or many."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.sources.bucket_folder import object_names
from pipelines.sources.csv_file import read_csv
from pipelines.sources.errors import SourceError
from pipelines.sources.folders import has_image_suffix
from pipelines.sources.lance_photos import read_lance
from pipelines.sources.links import is_hidden
from pipelines.sources.notes import Note
from pipelines.sources.parquet_file import read_parquet
from pipelines.sources.source_file import SourceFile
from pipelines.sources.tar_shards import read_tar
from storage.objects.parallel_streams import in_parallel
from storage.photos.uris import ObjectUri

__all__ = ["LANCE", "SUFFIXES", "find_shards", "is_container", "read_rows", "read_shards", "shard_range"]

PARQUET, TAR, LANCE = frozenset({".parquet", ".pq"}), ".tar", ".lance"
SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt", *PARQUET})
# Files that are neither, whatever their name.
FOREIGN = {
    b"PK\x03\x04": "a spreadsheet or an archive: export it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: export it as CSV",
    b"\x1f\x8b": "compressed: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed: unpack it",
    b"SQLite format 3": "a database: export it as CSV",
}
SHARDS_AT_ONCE, ROWS_AT_ONCE, CHUNKS_AHEAD = 8, 256, 8
MAX_SHARDS = 1_000_000
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}", re.ASCII)
Rows = tuple[Iterator[dict[str, Any]], list[Note]]


def is_container(name: str) -> bool:
    """Return whether a source of this name is a file that lists or holds photos."""
    suffix = Path(name).suffix.lower()
    return suffix in SUFFIXES or suffix in (TAR, LANCE)


def read_rows(file: SourceFile, photo_column: str | None = None, *, needs_paths: bool = True) -> Rows:
    """Read the known columns of a listing, whose kind its content tells, or the photos of a container.

    Args:
        file: The listing, tar shard or Lance data set.
        photo_column: Column of a table that holds the photos.
        needs_paths: Whether a listing must have the paths of photos.

    Returns:
        The rows by the names of `pipelines.sources.columns`, and notes on the columns.

    Raises:
        SourceError: the file cannot be read, is too large, or has columns that cannot be used; also later, as
            rows are read.
    """
    if file.suffix == LANCE:
        return read_lance(file, photo_column)
    if isinstance(file.place, Path) and not file.place.is_file():
        raise SourceError(f"{file} is not a regular file: give one, not a pipe or a device")
    try:
        with file.open() as opened:
            start = opened.read(16)
    except OSError as error:
        said = error.strerror or "there is no such object"
        raise SourceError(f"{file} cannot be read ({said}): check the path") from error
    for magic, message in FOREIGN.items():
        if start.startswith(magic):
            raise SourceError(f"{file} is {message}")
    if file.suffix == TAR:
        return read_tar(file), []
    if start.startswith(b"PAR1") or file.suffix in PARQUET:
        return read_parquet(file, photo_column, needs_paths=needs_paths)
    return _read_csv(file, needs_paths)


def _read_csv(file: SourceFile, needs_paths: bool) -> Rows:
    """Read a CSV file; of a bucket from a temporary copy, since its encoding is that of all of it."""
    if isinstance(file.place, Path):
        return read_csv(file.place, needs_paths=needs_paths)
    with contextlib.ExitStack() as stack:
        rows, notes = read_csv(stack.enter_context(file.on_disk()), file, needs_paths=needs_paths)
        kept = stack.pop_all()

    def rest() -> Iterator[dict[str, Any]]:
        with kept:
            yield from rows

    return rest(), notes


def read_shards(files: list[SourceFile], photo_column: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of many containers in their order, of which some are read ahead in threads."""

    def chunks(file: SourceFile) -> Iterator[list[dict[str, Any]]]:
        rows = read_tar(file) if file.suffix == TAR else read_rows(file, photo_column)[0]
        return iter(lambda: list(itertools.islice(rows, ROWS_AT_ONCE)), [])

    streams = (partial(chunks, file) for file in files)
    for chunk in in_parallel(streams, at_once=SHARDS_AT_ONCE, ahead=CHUNKS_AHEAD):
        yield from chunk


def shard_range(text: str) -> list[str]:
    """Return the names that `train-{000..127}.tar` stands for, as WebDataset writes it; of others, itself.

    Raises:
        SourceError: there are too many.
    """
    if (found := _RANGE.search(text)) is None:
        return [text]
    first, last, width = int(found[1]), int(found[2]), len(found[1])
    if not 0 <= last - first < MAX_SHARDS:
        raise SourceError(f"{found[0]} in {text} is not a range of shards: write the smaller number first")
    return [f"{text[: found.start()]}{at:0{width}}{text[found.end() :]}" for at in range(first, last + 1)]


def find_shards(source: SourceFile) -> list[SourceFile]:
    """Return the tar or Parquet files below a folder or prefix without images; none if it has images.

    Args:
        source: The folder or prefix.
    """
    found: list[tuple[str, SourceFile]] = []
    for name, place in _names_below(source):
        if has_image_suffix(name):
            return []
        if Path(name).suffix.lower() in (*PARQUET, TAR):
            found.append((name, SourceFile(place, source.options, name)))
    return [file for _, file in sorted(found, key=lambda one: one[0])]


def _names_below(source: SourceFile) -> Iterator[tuple[str, Path | ObjectUri]]:
    if isinstance(source.place, ObjectUri):
        yield from object_names(source.place, source.options)
        return
    for path in sorted(source.place.rglob("*")):
        name = path.relative_to(source.place).as_posix()
        if path.is_file() and not path.is_symlink() and not any(map(is_hidden, name.split("/"))):
            yield name, path

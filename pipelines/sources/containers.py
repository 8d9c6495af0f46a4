"""Files that hold a listing: CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.sources.csv_file import read_csv
from pipelines.sources.errors import SourceError
from pipelines.sources.notes import Note
from pipelines.sources.parquet_file import read_parquet

__all__ = ["SUFFIXES", "read_rows"]

SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq"})
# Files that are neither, whatever their name.
FOREIGN = {
    b"PK\x03\x04": "a spreadsheet or an archive: export it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: export it as CSV",
    b"\x1f\x8b": "compressed: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed: unpack it",
    b"SQLite format 3": "a database: export it as CSV",
}


def read_rows(path: Path) -> tuple[Iterator[dict[str, Any]], list[Note]]:
    """Read the known columns of a listing, whose kind its content tells.

    Returns:
        The rows by the names of `pipelines.sources.columns`, and notes on the columns.

    Raises:
        SourceError: the file cannot be read, is too large, or has columns that cannot be used; also later, as
            rows are read.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file: give one, not a pipe or a device")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): check the path") from error
    for magic, message in FOREIGN.items():
        if start.startswith(magic):
            raise SourceError(f"{path} is {message}")
    if start.startswith(b"PAR1") or path.suffix.lower() in {".parquet", ".pq"}:
        return read_parquet(path)
    return read_csv(path)

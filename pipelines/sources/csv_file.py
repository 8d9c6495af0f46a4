"""CSV listings as spreadsheets and programs write them: separator, encoding and quoting are found out."""

from __future__ import annotations

import codecs
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pipelines.sources.columns import Column, count_known, map_columns, pick
from pipelines.sources.errors import SourceError
from pipelines.sources.notes import Note

__all__ = ["read_csv"]

SEPARATORS = (",", ";", "\t", "|")
NO_SEPARATOR = "\x1f"  # for a listing of a single column, whose values may contain any separator
MAX_LINE, MAX_FIELD = 16 << 20, 4 << 20  # characters
MAX_HEADER_LINES = 100
CHUNK_BYTES = 1 << 20
BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_csv(
    path: Path, name: object = None, *, needs_paths: bool = True
) -> tuple[Iterator[dict[str, Any]], list[Note]]:
    """Read the known columns of a CSV file as text.

    Args:
        path: The file.
        name: What messages call it; default: its path.
        needs_paths: Whether a column with the paths of photos must be there.

    Returns:
        The rows by our column names, read as they are needed, and notes on the columns. A row with `problem`
        has more values than the header has columns.

    Raises:
        SourceError: the file cannot be read or has columns that cannot be used; also while rows are read.
    """
    name = name or path
    try:
        file = path.open(encoding=_encoding(path), errors="replace", newline="")
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror}): check the path") from error
    try:
        lines = _Lines(file, name)
        header, separator = _read_header(lines)
        columns, notes = map_columns(header, name, needs_paths=needs_paths)
    except BaseException:
        file.close()
        raise
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    return _rows(file, _Records(lines, separator, len(header)), columns, len(header)), notes


def _rows(
    file: TextIO, records: _Records, columns: dict[str, list[Column]], width: int
) -> Iterator[dict[str, Any]]:
    with file:
        for cells in records:
            if not any(map(str.strip, cells)):
                continue
            row = pick(columns, cells)
            if len(cells) > width and any(map(str.strip, cells[width:])):
                row["problem"] = f"has {len(cells)} values for {width} columns: quote values with separators"
            yield row


class _Lines:
    """Lines of a file of bounded length; `record` collects those since it was last cleared."""

    def __init__(self, file: TextIO, name: object) -> None:
        self.file, self.name = file, name
        self.record: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self.file.readline(MAX_LINE + 1)
        except OSError as error:
            raise SourceError(f"{self.name} cannot be read ({error.strerror}): check the disk") from error
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE:
            raise SourceError(
                f"{self.name}: line {self.number} has more than {MAX_LINE} characters: is it a CSV file?"
            )
        self.record.append(line)
        return line


class _Records:
    """Records of a CSV file. Where quotes do not match, each line is read as a record of its own."""

    def __init__(self, lines: _Lines, separator: str, width: int) -> None:
        self.lines, self.separator, self.width = lines, separator, width

    def __iter__(self) -> Iterator[list[str]]:
        reader = csv.reader(self.lines, delimiter=self.separator, skipinitialspace=True, strict=True)
        while True:
            self.lines.record.clear()
            try:
                yield next(reader)
            except StopIteration:
                return
            except csv.Error:
                if cells := self._escaped():
                    yield cells
                    continue
                for line in list(self.lines.record):
                    yield _cells(line, self.separator)

    def _escaped(self) -> list[str] | None:
        """Return the record whose quotes are escaped by backslashes, as Spark and MySQL write, or None."""
        begun = list(self.lines.record)
        if not any('\\"' in line for line in begun):
            return None
        lines = itertools.chain(begun, self.lines)
        options: dict[str, Any] = {"delimiter": self.separator, "skipinitialspace": True, "strict": True}
        try:
            cells = next(csv.reader(lines, escapechar="\\", doublequote=False, **options), [])
        except csv.Error:
            return None
        return cells if len(cells) == self.width else None


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # a field beyond the limit
        return line.rstrip("\r\n").split(separator)


def _read_header(lines: _Lines) -> tuple[list[str], str]:
    """Return the names of the columns and the separator, which is the one that makes most of the header."""
    line = next((line for line in lines if line.strip()), "")
    if line.lower().startswith("sep=") and len(line.rstrip("\r\n")) == 5:  # Excel's own convention
        line = next((line for line in lines if line.strip()), "")
    while (
        line.startswith("#") and not _best(line)[0][0] and len(lines.record) < MAX_HEADER_LINES
    ):  # a comment
        line = next((line for line in lines if line.strip()), "")
    while line.count('"') % 2 and len(lines.record) < MAX_HEADER_LINES:
        more = next(lines, None)
        if more is None:
            break
        line += more
    _, header, separator = _best(line)
    return header, separator if len(header) > 1 else NO_SEPARATOR


def _best(line: str) -> tuple[tuple[bool, int], list[str], str]:
    """Return what is known of a header, its names and its separator; a space only where nothing else is."""
    choices = [(count_known(cells := _cells(line, mark)), cells, mark) for mark in SEPARATORS]
    best = max(choices, key=lambda choice: (*choice[0], len(choice[1])))
    if not best[0][0] and len(best[1]) == 1:
        cells = _cells(line.strip(" #\r\n"), " ")
        spaced = (count_known(cells), cells, " ")
        best = spaced if spaced[0][0] else best
    return best


def _encoding(path: Path) -> str:
    """Return the encoding of a file: by its mark, else UTF-8 where all of it is, else Windows-1252."""
    with path.open("rb") as file:
        start = file.read(4096)
        for mark, encoding in BOMS:
            if start.startswith(mark):
                return encoding
        if len(start) >= 4:
            if start[1::2].count(0) > 0.4 * len(start) / 2:
                return "utf-16-le"
            if start[0::2].count(0) > 0.4 * len(start) / 2:
                return "utf-16-be"
        for encoding in ("utf-8", "cp1252"):
            file.seek(0)
            decoder = codecs.getincrementaldecoder(encoding)()
            try:
                while chunk := file.read(CHUNK_BYTES):
                    decoder.decode(chunk)
                decoder.decode(b"", True)
            except UnicodeDecodeError:
                continue
            return encoding
    return "latin-1"

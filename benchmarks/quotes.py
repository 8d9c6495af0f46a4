"""Figures that the documentation quotes from the results: compare them, or write them anew with --write.

A comment, which no reader sees, names the result behind a figure. After a number:

    takes 14.7<!-- quotes extract models.conv.1 threads.placeray_ms --> ms

Before a table, for all of its cells; {row} and {column} are filled in from the two lists, and {more} from
what follows `::` in a row. An empty entry quotes nothing, and `;` separates several numbers of one cell (`-`
leaves one out):

    <!-- quotes extract models.{row}.{column}_ms
    rows: conv.1 threads | conv.2 threads
    columns: | placeray | plain; bf16
    -->

Keys are separated by dots; one that has a dot itself stands in brackets, as in `reranked[share 0.3].50 m`.
`results[images=400]` is the first entry of a list with this value. A figure equals its result if it is the
result rounded to as many decimals as the figure has.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS
from benchmarks.sources import ROOT

__all__ = ["BadQuote", "Quote", "differences", "documents", "find_quotes", "rewritten"]

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_AFTER_NUMBER = re.compile(rf"({NUMBER})(?:\*\*)?<!-- quotes (\S+) ([^\n]+?) -->")
_BEFORE_TABLE = re.compile(
    r"^<!-- quotes (\S+) (\S[^\n]*)\nrows:([^\n]*)\ncolumns:([^\n]*)\n-->\n\n", re.MULTILINE
)
_STEP = re.compile(r"([^.\[\]]+)|\[([^=\]]+)\]|\[([^=\]]+)=([^\]]+)\]")


class BadQuote(ValueError):
    """A comment that does not fit its table, or names no result."""


@dataclass(frozen=True)
class Quote:
    """A number in a text, from `start` to `end`, and the result that it quotes."""

    start: int
    end: int
    figure: str
    file: str
    key: str

    @property
    def steps(self) -> tuple[str, ...]:
        """Return the names in the key, of an entry of a list `field=value`."""
        matches = (match.groups() for match in _STEP.finditer(self.key))
        return tuple(plain or bracketed or f"{field}={wanted}" for plain, bracketed, field, wanted in matches)


def find_quotes(text: str) -> list[Quote]:
    """Return all quotes of a document in their order; BadQuote for a comment that does not fit its table."""
    found = [Quote(*m.span(1), *m.groups()) for m in _AFTER_NUMBER.finditer(text)]
    tables = list(_BEFORE_TABLE.finditer(text))
    if len(found) + len(tables) < (comments := text.count("<!-- quotes ")):
        raise BadQuote(f"only {len(found) + len(tables)} of {comments} comments with quotes can be read")
    for comment in tables:
        found += _quotes_of_table(text, comment)
    return sorted(found, key=lambda quote: quote.start)


def _quotes_of_table(text: str, comment: re.Match[str]) -> Iterator[Quote]:
    file, key = comment[1], comment[2]
    rows, columns = ([entry.strip() for entry in comment[n].split("|")] for n in (3, 4))
    lines = list(_table(text, comment.end()))
    if len(lines) != len(rows):
        raise BadQuote(f"quotes {file} {key}: {len(rows)} rows for a table of {len(lines)}")
    for row, (start, line) in zip(rows, lines, strict=True):
        cells = list(re.finditer(r"(?<=\|)[^|]*(?=\|)", line))
        if len(cells) != len(columns):
            raise BadQuote(f"quotes {file} {key}: {len(columns)} columns for {line!r}")
        for column, cell in zip(columns, cells, strict=True):
            numbers = list(re.finditer(NUMBER, cell[0]))
            wanted = [one.strip() for one in column.split(";")] if column and row else []
            if cell[0].strip() and len(wanted) > len(numbers):
                raise BadQuote(f"quotes {file} {key}: {cell[0].strip()!r} has no {len(wanted)} numbers")
            for one, number in zip(wanted, numbers, strict=False):
                if one != "-":
                    at = start + cell.start()
                    name, _, more = (part.strip() for part in row.partition("::"))
                    filled = key.replace("{column}", one).replace("{row}", name).replace("{more}", more)
                    yield Quote(at + number.start(), at + number.end(), number[0], file, filled)


def _table(text: str, start: int) -> Iterator[tuple[int, str]]:
    """Yield position and text of each body row of the table that begins at `start`."""
    lines = text[start:].split("\n")
    if len(lines) < 2 or not lines[1].startswith("|-"):
        raise BadQuote(f"no table after a comment: {lines[0]!r}")
    for number, line in enumerate(lines):
        if not line.startswith("|"):
            return
        if number > 1:
            yield start, line
        start += len(line) + 1


def result_of(quote: Quote, folder: Path = RESULTS) -> float:
    """Return the figure among the results; BadQuote if there is none."""
    value = _read(folder / f"{quote.file}.json")
    for step in _STEP.finditer(quote.key):
        plain, bracketed, field, wanted = step.groups()
        name = plain or bracketed
        try:
            if field:
                value = next(entry for entry in value if str(entry[field]) == wanted)
            else:
                value = value[int(name)] if isinstance(value, list) else value[name]
        except (KeyError, IndexError, TypeError, ValueError, StopIteration):
            raise BadQuote(f"{quote.file}.json has no {quote.key} (at {step[0]!r})") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadQuote(f"{quote.file}.json: {quote.key} is not a number")
    return float(value)


@cache
def _read(path: Path) -> Any:
    if not path.is_file():
        raise BadQuote(f"no results in {path.name}")
    return json.loads(path.read_text())


def differences(text: str, folder: Path = RESULTS) -> list[str]:
    """Return one sentence for each figure that is not its result."""
    return [
        f"{quote.figure} is {result_of(quote, folder):g} in {quote.file}.json, {quote.key}"
        for quote in find_quotes(text)
        if not _equal(quote.figure, result_of(quote, folder))
    ]


def rewritten(text: str, folder: Path = RESULTS) -> str:
    """Return the text with every quoted figure as the results have it, with as many decimals as before."""
    for quote in reversed(find_quotes(text)):
        value = result_of(quote, folder)
        if not _equal(quote.figure, value):
            text = text[: quote.start] + f"{value:,.{_decimals(quote.figure)}f}" + text[quote.end :]
    return text


def _equal(figure: str, value: float) -> bool:
    return abs(float(figure.replace(",", "")) - value) <= 0.5 * 10 ** -_decimals(figure) * (1 + 1e-9) + 1e-12


def _decimals(figure: str) -> int:
    return len(figure.partition(".")[2])


def documents() -> list[Path]:
    """Return the pages that may quote results."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the results into the documents")
    write = parser.parse_args(arguments).write
    total = 0
    for path in documents():
        text = path.read_text()
        found = differences(text)
        total += len(found)
        for sentence in found:
            print(f"{path.relative_to(ROOT)}: {sentence}")
        if write and found:
            path.write_text(rewritten(text))
    return 1 if total and not write else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Counts of an index run: extracted, unchanged and rejected images, and what was dropped of the others."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.rejected_rows import RejectedRows
from pipelines.sources import SKIPPED_LINKS, Note, Skipped, split_notes
from storage.objects.files import Location, exists, remove_files, write_parts
from storage.text import spreadsheet_safe

__all__ = ["OnProgress", "Tally"]

OnProgress = Callable[[int, int, int], None]
PART_CHARACTERS = 1 << 20
MAX_NOTES = 100_000  # listed of each reason; all are counted


@dataclass
class Tally:
    """Counts rows as they arrive and keeps the rejected ones.

    Attributes:
        total: Number of listed images.
        progress: Called with (done, rejected, total) after each batch.
        extracted: Images that went through the model.
        unchanged: Images that the store already had with the same content.
        reasons: Number of rejected images by reason.
        rejections: The rejected images.
        notes: image_id, uri, reason and message of each dropped value of an accepted image, up to `MAX_NOTES`
            of a reason.
        notes_by_reason: Number of dropped values for each reason.
        without_position: Number of accepted images whose position is unknown.
        folder_links_skipped: Number of links to folders that were not followed.
    """

    total: int
    progress: OnProgress
    extracted: int = 0
    unchanged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rejections: RejectedRows = field(default_factory=RejectedRows)
    notes: list[dict[str, Any]] = field(default_factory=list)
    notes_by_reason: Counter[str] = field(default_factory=Counter)
    without_position: int = 0
    folder_links_skipped: int = 0

    @property
    def rejected(self) -> int:
        """Number of rejected images."""
        return len(self.rejections)

    @property
    def links_skipped(self) -> int:
        """Number of links that were not followed, to images and to folders."""
        return self.folder_links_skipped + sum(self.reasons[reason] for reason in SKIPPED_LINKS)

    def add(self, rows: pa.Table) -> None:
        """Count the rows of a batch and report progress."""
        rejected = rows.filter(pc.is_valid(rows["rejected"]))
        self.rejections.add(rejected)
        self.reasons.update(rejected["rejected"].to_pylist())
        self.unchanged += pc.sum(rows["unchanged"]).as_py() or 0
        self.extracted += rows.num_rows - rows["shard"].null_count
        accepted = rows.filter(pc.is_null(rows["rejected"]))
        self.without_position += _count_without_position(accepted)
        noted = accepted.filter(pc.is_valid(accepted["notes"])).select(["image_id", "uri", "notes"])
        for row in noted.to_pylist():
            self.add_notes(split_notes(row["notes"]), uri=row["uri"], image_id=row["image_id"])
        self.progress(self.extracted + self.unchanged + self.rejected, self.rejected, self.total)

    def add_notes(self, notes: Iterable[Note], *, uri: str, image_id: str = "") -> None:
        """Keep notes on an image, or on a listing as a whole."""
        for note in notes:
            self.notes_by_reason[note.reason] += 1
            if self.notes_by_reason[note.reason] <= MAX_NOTES:
                self.notes.append({"image_id": image_id, "uri": uri, **note._asdict()})

    def add_skipped(self, skipped: Iterable[Skipped]) -> None:
        """Keep notes on the links and folders of a source that have no row in its listing."""
        for path, reason, message in skipped:
            self.folder_links_skipped += reason in SKIPPED_LINKS
            self.add_notes([Note(reason, message)], uri=path)

    def add_vanished(self, photos: Iterable[tuple[str, str]], note: Note) -> None:
        """Keep a note on each stored photo, by id and uri, that the source no longer has."""
        for image_id, uri in photos:
            self.add_notes([note], uri=uri, image_id=image_id)

    def write_rejections(self, path: Location) -> None:
        """List the rejected images in a CSV file; without any, a file of an earlier run is removed."""
        _write_list(path, self.rejections.ordered(), len(self.rejections))

    def write_notes(self, path: Location) -> None:
        """List the dropped values in a CSV file; without any, a file of an earlier run is removed."""
        left_out = {
            reason: count - MAX_NOTES for reason, count in self.notes_by_reason.items() if count > MAX_NOTES
        }
        ends = [
            {"image_id": "", "uri": "", **Note(reason, f"and {count} more")._asdict()}
            for reason, count in left_out.items()
        ]
        listed = sorted([*self.notes, *ends], key=lambda row: str(row["image_id"]))
        _write_list(path, listed, len(listed))


def _count_without_position(accepted: pa.Table) -> int:
    """Count images without a position; unchanged ones may have one in the store that the listing lacks."""
    unknown = pc.and_(pc.is_null(accepted["lat"]), pc.is_null(accepted["utm_e"]))
    stored = pc.and_(accepted["unchanged"], accepted["stored_position"])
    return pc.sum(pc.and_not(unknown, pc.fill_null(stored, False))).as_py() or 0


def _write_list(path: Location, rows: Iterable[dict[str, Any]], count: int) -> None:
    """Write a CSV file for people: cells that a spreadsheet would run as a formula begin with an apostrophe.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the file system is read-only, or the folder is another user's.
    """
    if not count:
        if exists(path):
            remove_files([path])
        return
    lines = ([spreadsheet_safe(value) for value in row.values()] for row in rows)
    write_parts(path, _csv_parts(itertools.chain([["image_id", "uri", "reason", "message"]], lines)))


def _csv_parts(lines: Iterable[list[str]]) -> Iterator[bytes]:
    """Yield a CSV file in parts."""
    content = io.StringIO(newline="")
    table = csv.writer(content)
    for line in lines:
        table.writerow(line)
        if content.tell() >= PART_CHARACTERS:
            yield content.getvalue().encode()
            content.seek(0)
            content.truncate()
    yield content.getvalue().encode()

"""Locates the photos of a folder that have no position yet."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.images import ImageRejected
from models.images.facts import facts_of_file
from models.images.photo_file import read_bytes
from models.photo_limits import MAX_MEGAPIXELS
from models.runtime.execution import AS_USUAL, Execution
from pipelines.locate.entry import Entry, Status
from pipelines.locate.lists import list_bytes, require_list_format
from pipelines.locate.review_page import ReviewPages
from pipelines.progress import ProgressBar
from pipelines.sources import SourceError, list_source
from serving.answer import QueryResult
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY, Matching
from storage.durable import replace_file
from storage.objects.address import is_bucket_uri

__all__ = ["LocateReport", "locate"]

_MATCHES = 10  # among which the evidence is looked for


@dataclass(frozen=True)
class LocateReport:
    """What `locate` did.

    Attributes:
        photos: Photos of the source.
        located: Those that have a place now.
        unknown: Those without one, or that the calibration does not call known.
        has_position: Those whose EXIF names a position already; they were left out.
        rejected: Those that cannot be used.
        rejected_by_reason: Their number by reason.
        calibration_reasons: Why the store's calibration, if it has one, does not hold in full for answers,
            and for how many of them.
        out: The list.
        review: Pages to review the places on.
        seconds: Time of it all.
    """

    photos: int
    located: int
    unknown: int
    has_position: int
    rejected: int
    rejected_by_reason: dict[str, int]
    calibration_reasons: dict[str, int]
    out: str
    review: list[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return asdict(self)


@dataclass
class _Photos:
    """Reads the photos of a listing one by one; those that are to be located are yielded.

    Attributes:
        listing: Rows of `pipelines.sources.LISTING_SCHEMA`.
        folder: What their names are relative to.
        everything: Whether photos that have a position are located too.
        waiting: Entries of the photos that were yielded, without their place, and their bytes.
        others: Entries of the other photos.
    """

    listing: pa.Table
    folder: str
    everything: bool
    waiting: deque[tuple[Entry, bytes]] = field(default_factory=deque)
    others: list[Entry] = field(default_factory=list)

    def __iter__(self) -> Iterator[bytes]:
        for row in self.listing.select(["image_id", "uri", "rejected"]).to_pylist():
            named = {"image": row["image_id"] or row["uri"], "folder": self.folder, "path": row["uri"]}
            if row["rejected"] is not None:
                self.others.append(Entry(**named, sha256="", status="rejected", reason=row["rejected"]))
                continue
            try:
                data = read_bytes(row["uri"])
                facts = facts_of_file(data)
            except ImageRejected as error:
                self.others.append(Entry(**named, sha256="", status="rejected", reason=error.reason))
                continue
            known: Status = "has_position" if facts.lat is not None and not self.everything else "unknown"
            digest = hashlib.sha256(data).hexdigest()
            entry = Entry(**named, sha256=digest, status=known, captured_at=facts.captured_at)
            if known == "has_position":
                self.others.append(entry)
                continue
            self.waiting.append((entry, data))
            yield data


def locate(
    source: str | Path,
    store_uri: str,
    out: str | Path,
    *,
    model: str | None = None,
    matching: Matching = ALL_EXACTLY,
    execution: Execution = AS_USUAL,
    max_megapixels: float = MAX_MEGAPIXELS,
    everything: bool = False,
    review: bool = True,
    follow_links: bool = False,
    quiet: bool = False,
    **options: Any,
) -> LocateReport:
    """Locate photos, and write a list of their places and pages to review them on.

    Args:
        source: A folder or a listing of photos.
        store_uri: The store; only read.
        out: The list: .csv, .geojson or .gpx.
        model: See `QueryEngine.open`.
        matching: See `QueryEngine.open`.
        execution: See `QueryEngine.open`.
        max_megapixels: See `QueryEngine`.
        everything: Whether photos that have a position are located too.
        review: Whether pages are written, beside the list.
        follow_links: See `list_source`.
        quiet: Show no progress.
        options: candidates, rerank, max_wrong, within and prior of `QueryEngine.answer_many`.

    Raises:
        SourceError: the source cannot be used.
        UnknownListFormat: the name of the list ends otherwise.
        StoreError: the store cannot be read, or was made by another model.
        OutOfSpace, NotWritable: the list or a page cannot be written.
    """
    started = time.perf_counter()
    if is_bucket_uri(str(source)):
        raise SourceError(f"{source} is a bucket: copy the photos to a folder, whose path you give")
    engine = QueryEngine.open(
        store_uri, model=model, matching=matching, execution=execution, max_megapixels=max_megapixels
    )
    require_list_format(out)
    listing = list_source(source, follow_links=follow_links)
    photos = _Photos(listing, listing["source"][0].as_py(), everything)
    pages = ReviewPages(Path(out), engine.store) if review else None
    found: list[Entry] = []
    with ProgressBar("locate", quiet=quiet) as bar:
        for answer in engine.answer_many(photos, top_k=_MATCHES, **options):
            entry, data = photos.waiting.popleft()
            entry = _located(entry, answer)
            found.append(entry)
            if pages is not None and isinstance(answer, QueryResult) and entry.has_position:
                pages.add(entry, data, answer.matches)
            rejected = sum(each.status == "rejected" for each in (*found, *photos.others))
            bar.update(len(found) + len(photos.others), rejected, listing.num_rows)
    order = {name: at for at, name in enumerate(listing["image_id"].to_pylist())}
    entries = sorted([*found, *photos.others], key=lambda entry: order.get(entry.image, 0))
    replace_file(Path(out), list_bytes(entries, out))
    statuses = Counter(entry.status for entry in entries)
    return LocateReport(
        photos=len(entries),
        located=statuses["located"],
        unknown=statuses["unknown"],
        has_position=statuses["has_position"],
        rejected=statuses["rejected"],
        rejected_by_reason=dict(Counter(e.reason or "" for e in entries if e.status == "rejected")),
        calibration_reasons=_calibration_reasons(entries),
        out=str(out),
        review=[] if pages is None else pages.finish(),
        seconds=round(time.perf_counter() - started, 2),
    )


def _located(entry: Entry, answer: QueryResult | ImageRejected) -> Entry:
    """Return the entry of a photo with what its answer says."""
    about = {name: getattr(entry, name) for name in ("image", "folder", "path", "sha256", "captured_at")}
    if isinstance(answer, ImageRejected):
        return Entry(**about, status="rejected", reason=answer.reason)
    reason = _why_unknown(answer)
    return Entry(
        **about,
        status="located" if reason is None else "unknown",
        place=answer.place,
        calibration=answer.calibration,
        considered=answer.considered,
        reason=reason,
    )


def _calibration_reasons(entries: Sequence[Entry]) -> dict[str, int]:
    abouts = [entry.calibration for entry in entries if entry.calibration is not None]
    return dict(Counter(about["reason"] for about in abouts if about["exists"] and not about["guaranteed"]))


def _why_unknown(answer: QueryResult) -> str | None:
    """Return why an answer locates nothing, see `Entry.reason`; None where it does."""
    if answer.place["position"] is None:
        return "no_position" if answer.matches else "no_candidates"
    return "not_known" if answer.place["known"] is False else None

"""What `placeray index` prints at its end."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.indexing.report import IndexReport
from pipelines.progress import counted

__all__ = ["summary_lines"]


def summary_lines(report: IndexReport, store: str) -> list[str]:
    """Return the lines that tell how a run ended.

    Args:
        report: Result of the run.
        store: The store, as the user named it.
    """
    first = (
        f"{report.input} images: {report.accepted} accepted ({report.unchanged} unchanged), "
        f"{report.rejected} rejected, {report.seconds:.1f} s, {report.images_per_s:.1f} images/s, "
        f"store version {report.store_version}"
    )
    parts = (_rejections(report), _cluster(report), _photos(report), _notes(report), _learning(report, store))
    return [first, *(f"  {line}" for part in parts for line in part)]


def _rejections(report: IndexReport) -> Iterator[str]:
    for reason, count in sorted(report.rejected_by_reason.items()):
        yield f"rejected {count}: {reason}"
    if report.rejected_file:
        yield f"listed in {report.rejected_file}"


def _cluster(report: IndexReport) -> Iterator[str]:
    if report.nodes_lost:
        yield f"{counted(report.nodes_lost, 'node')} lost; the work of lost nodes was done again"
    if report.waited_s >= 1:
        yield f"waited {report.waited_s:.0f} s for room on the cluster"


def _photos(report: IndexReport) -> Iterator[str]:
    if report.without_position:
        photos = "photo has" if report.without_position == 1 else "photos have"
        yield f"{report.without_position} {photos} no position"
    if report.upgraded:
        yield "the store was upgraded to the newest format: older versions no longer open it"
    if report.missing_from_source:
        images = "image is" if report.missing_from_source == 1 else "images are"
        end = f", {report.pruned} removed" if report.pruned else ": remove their rows with --prune"
        yield f"{report.missing_from_source} stored {images} no longer in the source{end}"
    if report.links_skipped:
        links = "link was" if report.links_skipped == 1 else "links were"
        yield f"{report.links_skipped} {links} not followed{_advice_on_links(report)}"


def _advice_on_links(report: IndexReport) -> str:
    """Return the advice to follow links, for those alone that lead out of the source."""
    counts = (report.rejected_by_reason, report.notes_by_reason)
    outside = sum(reasons.get("link_outside", 0) for reasons in counts)
    if not outside:
        return ""
    return ": add --follow-links" if outside >= report.links_skipped else f": {outside} with --follow-links"


def _notes(report: IndexReport) -> Iterator[str]:
    for reason, count in sorted(report.notes_by_reason.items()):
        yield f"noted {count}: {reason}"
    if report.notes_file:
        yield f"listed in {report.notes_file}"


def _learning(report: IndexReport, store: str) -> Iterator[str]:
    if report.relearned_from:
        yield f"descriptors learned again from {report.relearned_from} photos"
    if report.relearning_advice:
        yield f"{report.relearning_advice}: run placeray relearn --store {store}"

"""The result of an index run."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.indexing.run import Outcome
from pipelines.indexing.tally import Tally
from storage.objects.files import Location
from storage.store import Store

__all__ = ["IndexReport", "report_of"]


@dataclass(frozen=True)
class IndexReport:
    """Result of an index run.

    Attributes:
        input: Number of listed images.
        accepted: Listed images that the store now holds, including the `unchanged` ones.
        rejected: Listed images that could not be used; accepted + rejected = input.
        unchanged: Accepted images that the store already held with the same content.
        seconds: Duration of the whole run.
        images_per_s: Newly extracted images divided by the seconds from the start of the first stage to the
            last commit.
        store_version: Version after the last commit.
        rejected_by_reason: Number of rejected images for each reason.
        rejected_file: CSV file that lists the rejected images, or None without any.
        without_position: Number of accepted images whose position is unknown.
        links_skipped: Number of symbolic links that were not followed: rejected images, and folders.
        missing_from_source: Number of images stored from this source that it no longer has.
        pruned: Number of those whose rows were removed.
        upgraded: Whether the store was brought to the newest format, since the run needed it.
        notes_by_reason: Number of values of accepted images that were dropped, for each reason.
        notes_file: CSV file that lists them, or None without any.
        nodes_lost: Number of nodes that the cluster lost during the run.
        waited_s: Seconds in which nothing could run, since the cluster had no room.
        flows: Number of times that the work was spread over the cluster: once, and again after each loss that
            Ray could not mend.
        leftover_bytes_removed: Size of the feature files that stopped runs had left, and that were removed.
        aggregation: `learned` or `gem`.
        relearned_from: Number of photos that this run learned the aggregation from at its end, or None.
        relearning_advice: Why `placeray relearn` is advisable, or None.
    """

    input: int
    accepted: int
    rejected: int
    unchanged: int
    seconds: float
    images_per_s: float
    store_version: int
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    rejected_file: str | None = None
    without_position: int = 0
    links_skipped: int = 0
    missing_from_source: int = 0
    pruned: int = 0
    upgraded: bool = False
    notes_by_reason: dict[str, int] = field(default_factory=dict)
    notes_file: str | None = None
    nodes_lost: int = 0
    waited_s: float = 0.0
    flows: int = 0
    leftover_bytes_removed: int = 0
    aggregation: str = "gem"
    relearned_from: int | None = None
    relearning_advice: str | None = None


def report_of(
    tally: Tally, store: Store, rejections: Location, seconds: float, outcome: Outcome
) -> IndexReport:
    """Return the result of a run from its counts.

    Args:
        tally: Counts of the images.
        store: The store after the last commit.
        rejections: File that lists the rejected images, if there are any.
        seconds: Duration of the whole run.
        outcome: What happened on the cluster.
    """
    return IndexReport(
        input=tally.total,
        accepted=tally.total - tally.rejected,
        rejected=tally.rejected,
        unchanged=tally.unchanged,
        seconds=round(seconds, 3),
        images_per_s=round(tally.extracted / outcome.seconds, 2),
        store_version=store.version,
        rejected_by_reason=dict(tally.reasons),
        rejected_file=str(rejections) if tally.rejected else None,
        without_position=tally.without_position,
        links_skipped=tally.links_skipped,
        notes_by_reason=dict(tally.notes_by_reason),
        nodes_lost=outcome.nodes_lost,
        waited_s=outcome.waited_s,
        flows=outcome.flows,
        leftover_bytes_removed=outcome.leftover_bytes_removed,
    )

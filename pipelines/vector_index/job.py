"""Builds the index on disk with many workers: parts side by side, merged once, checked against exact search.

placeray build-index --store s3://bucket/city --workers 8
"""

from __future__ import annotations

import time
from typing import Any

from pipelines.progress import ProgressBar
from pipelines.ray_session.session import check_ray, ray_session
from pipelines.vector_index.errors import IndexNeedsEights, IndexRecallTooLow
from pipelines.vector_index.part import build_part
from storage.care.index_recall import INDEX_RECALL
from storage.care.unfinished_index import UnfinishedIndex, forget_unfinished, read_unfinished
from storage.errors import error_from_dict
from storage.objects.location import open_location
from storage.search.snapshot import LANCE_INDEX_ROWS
from storage.store import Store
from storage.table.fragments import Fragments
from storage.table.index_segments import segment_from_json, train_model
from storage.table.lance_table import LIST_ROWS
from storage.table.open_table import dataset_of

__all__ = ["BITS", "build_index"]

BITS = (2, 4, 8)  # per dimension; the next where the one before finds too little
PART_ROWS = 250_000  # of a part at most, unless one fragment has more: what an interruption costs


def build_index(
    store_uri: str,
    *,
    workers: int,
    min_rows: int = LANCE_INDEX_ROWS,
    min_recall: float = INDEX_RECALL,
    quiet: bool = False,
) -> dict[str, Any]:
    """Build LanceDB's index on the descriptors with Ray, in place of one that is there.

    Its recall is measured before the store has it: one that finds too little is never searched. A build that
    was interrupted goes on with the parts that it has finished. All nodes must reach the store under the same
    address.

    Args:
        store_uri: The store.
        workers: How many parts are built at a time, each by one core.
        min_rows: With fewer rows none is built.
        min_recall: Recall@100 against exact search that the index must reach on the store's own rows.
        quiet: Show no progress.

    Returns:
        `store_version`, `indexed`, and for a built index `recall_at_100`, `bits`, `lists`, `parts`,
        `parts_kept` of an interrupted build, `seconds`.

    Raises:
        IndexNeedsEights: the descriptors have a number of dimensions that such an index cannot have.
        IndexRecallTooLow: the index finds too little with the longest codes.
        StoreLocked: another process writes to the store.
        NotWritable: the store is read-only.
        CannotJoinRay, CannotStartRay: see `ray_session`.
    """
    check_ray()
    store = Store.open(store_uri)
    width = store.card.descriptor_dim
    if width % 8:
        raise IndexNeedsEights(
            f"{store_uri} has descriptors of {width} dimensions, and many workers build an index of a "
            "multiple of eight: leave --workers out"
        )
    began, bar = time.monotonic(), ProgressBar("build-index", unit="rows", quiet=quiet)
    with store.lease():
        if store.count < min_rows:
            return {"store_version": store.version, "indexed": store.has_index}
        with ray_session() as ray, bar:
            for bits in BITS:
                unfinished, kept = _built(ray, store, store_uri, workers, bits, bar)
                segment = store.merged_segments(unfinished.segments)
                recall = store.recall_of_segment(segment)
                if recall >= min_recall:
                    store.use_segments([segment])
                    break
        forget_unfinished(open_location(store_uri))
    if recall < min_recall:
        raise IndexRecallTooLow(
            f"the index of {store_uri} finds {recall:.3f} of the exact hundred with {bits} bits per "
            "dimension: search in memory, by --method ivf or exact"
        )
    return {
        "store_version": store.version,
        "indexed": True,
        "recall_at_100": round(recall, 4),
        "bits": bits,
        "lists": len(unfinished.model.centroids),
        "parts": len(unfinished.segments),
        "parts_kept": kept,
        "seconds": round(time.monotonic() - began, 1),
    }


def _built(
    ray: Any, store: Store, store_uri: str, workers: int, bits: int, bar: ProgressBar
) -> tuple[UnfinishedIndex, int]:
    """Build the parts that are missing; return all, and how many were there."""
    folder, table = open_location(store_uri), store.table
    fragments = Fragments(table).by_number
    rows = {number: len(each.places()) for number, each in fragments.items()}
    unfinished = read_unfinished(folder, fragments, width=store.card.descriptor_dim, bits=bits)
    if unfinished is None:
        lists = max(1, round(store.count / LIST_ROWS))
        unfinished = UnfinishedIndex(train_model(dataset_of(table), lists=lists, bits=bits))
        unfinished.write(folder, fragments)
    kept = len(unfinished.segments)
    missing = {number: rows[number] for number in rows if number not in unfinished.fragments}
    done = store.count - sum(missing.values())
    bar.restart(store.count, initial=done)
    task = ray.remote(build_part).options(num_cpus=1, max_retries=3)
    waiting = parts(missing, workers)
    running: dict[Any, list[int]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            part = waiting.pop()
            running[task.remote(store_uri, store.version, unfinished.model, part)] = part
        for finished in ray.wait(list(running), timeout=1.0)[0]:
            made = ray.get(finished)
            if "error" in made:
                raise error_from_dict(made["error"])
            unfinished.segments.append(segment_from_json(made["part"]))
            unfinished.write(folder, fragments)
            done += sum(rows[number] for number in running.pop(finished))
        bar.update(done, None, store.count)
    return unfinished, kept


def parts(rows: dict[int, int], workers: int) -> list[list[int]]:
    """Return fragments in groups of about as many rows, the smallest group first; empty ones are left out.

    Args:
        rows: Rows of each fragment.
        workers: How many groups there are at least, if there are as many fragments.
    """
    limit = max(1, min(PART_ROWS, -(-sum(rows.values()) // max(1, workers))))
    groups: list[list[int]] = []
    sizes: list[int] = []
    for number, count in sorted(rows.items(), key=lambda each: -each[1]):
        if not count:
            continue
        fits = [at for at, size in enumerate(sizes) if size + count <= limit]
        if fits:
            groups[fits[0]].append(number)
            sizes[fits[0]] += count
        else:
            groups.append([number])
            sizes.append(count)
    return [group for _, group in sorted(zip(sizes, groups, strict=True), key=lambda each: each[0])]

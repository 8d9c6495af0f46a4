"""Index images on Ray Data: workers decode, extract and write shards, the driver commits.

The stages are separate operators and overlap. Full-size photos are never transferred: a decoder sends the
network's input (0.15 MB for the default model), an extractor sends encoded local features to a writer, and
only descriptors and metadata reach the driver, which commits by number and by time. The store is the only
record of progress: running the same command again processes what is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.aggregation.choice import aggregation_kind
from models.custom.reference import portable_model
from models.photo_limits import MAX_MEGAPIXELS
from models.runtime.execution import AS_USUAL, Execution
from pipelines.defaults import BATCH_SIZE, COMMIT_EVERY, COMMIT_SECONDS, PRUNE_SHARE
from pipelines.indexing.opening import card_of, open_or_create
from pipelines.indexing.plan import Request
from pipelines.indexing.projection import SAMPLE_IMAGES, learn_projection
from pipelines.indexing.reconcile import Change
from pipelines.indexing.report import IndexReport, report_of
from pipelines.indexing.run import ClusterRun, watch_of
from pipelines.indexing.tally import OnProgress, Tally
from pipelines.indexing.vanished import prune as remove_rows
from pipelines.indexing.work import Listed, Work
from pipelines.own_photos.due import measure_if_due
from pipelines.placement import ANYWHERE, Placement
from pipelines.progress import ProgressBar
from pipelines.ray_session import check_ray, on_cluster, ray_session
from pipelines.relearning import relearn_if_due, relearning_advice, sample_first
from pipelines.sources import open_source, split_options
from pipelines.tagging.change import TagChange
from storage.card import Card, FeatureEncoding
from storage.objects.location import open_file, open_location

__all__ = ["IndexReport", "index"]

OBJECT_STORE_BYTES = 512 << 20


@on_cluster
def index(
    source: str | Path,
    store_uri: str | Path,
    *,
    model: str | None = None,
    image_size: tuple[int, int] | None = None,
    features: FeatureEncoding | None = None,
    aggregation: str | None = None,
    root: str | Path | None = None,
    id_prefix: str = "",
    tags: Sequence[str] = (),
    batch_size: int = BATCH_SIZE,
    extractors: int | None = None,
    gpus_per_extractor: float | None = None,
    cpus: float | None = None,
    extractor_placement: Placement = ANYWHERE,
    decoder_placement: Placement = ANYWHERE,
    commit_every: int = COMMIT_EVERY,
    commit_seconds: float = COMMIT_SECONDS,
    stall_timeout_s: float | None = None,
    rejected_file: str | Path | None = None,
    trace: str | Path | None = None,
    scaled_decode: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    follow_links: bool = False,
    moved_from: str | Path | None = None,
    prune: bool = False,
    prune_share: float = PRUNE_SHARE,
    source_options: Mapping[str, str] | None = None,
    photo_column: str | None = None,
    execution: Execution = AS_USUAL,
    progress: OnProgress | None = None,
    quiet: bool = False,
) -> IndexReport:
    """Index the images of a source into a store; only new and changed images are extracted.

    Args:
        source: What `pipelines.sources.list_source` lists: a folder or a prefix of a bucket, a CSV or Parquet
            listing, tar shards, a table of photos, or a data set in the standard layout (its database).
        store_uri: The store; created if there is none.
        model: Name or weights file; default: the model of the store, or `efficientnet-lite0` for a new one.
        image_size: Height and width of the network's input; default: the store's, or the model's own.
        features: Encoding of local features in a new store, see `storage.features.encodings`; default: that
            of `default_encoding`. It must match that of an existing store.
        aggregation: Descriptors of a new store: `learned` from its photos, `gem`, the model's own, or the
            file of an aggregation; default: `learned` for models without a trained global head, see
            `models.aggregation.choice`. It must match an existing store.
        root: Folder that the paths of a listing are relative to and must stay inside.
        id_prefix: Prefix of every image id.
        tags: Given to every image of the source, beside those that the listing names or the store has.
        batch_size: Images per forward pass.
        extractors: Maximum number of actors that run the model; default: one per GPU. Without GPUs, one per
            core up to 8 on each node, or a single one for few images. There are fewer where fewer find room.
        gpus_per_extractor: Share of a GPU for each; default: 1 where the cluster has GPUs, else 0.
        cpus: Maximum number of CPU cores; default: all that are free when the run starts.
        extractor_placement: Custom resources and node labels of the extractors.
        decoder_placement: The same of the decoders.
        commit_every: Images between two commits at most.
        commit_seconds: Seconds between two commits at most, unless nothing is finished. What is younger than
            the last commit is what a crash can lose.
        stall_timeout_s: Time without a finished image after which the run ends; None: it waits.
        rejected_file: CSV file for the rejected images; default: `<store>/rejected.csv`.
        trace: File that gets one JSON line with timings for each batch of each stage.
        scaled_decode: Decode JPEGs much larger than the network's input at a half, a quarter or an eighth of
            their size. Descriptors are then nearly, not exactly, the same.
        max_megapixels: Largest image in megapixels; a decode worker takes 7 to 15 bytes per pixel. Of a JPEG
            that is decoded at a reduced size, what is decoded of it counts.
        follow_links: Whether symbolic links may lead out of the source.
        moved_from: What this source was before it moved; its rows become rows of this one.
        prune: Whether rows of this source are removed whose photos it no longer has.
        prune_share: Largest share of the source's rows that may be removed; nothing is done beyond it.
        source_options: Of the buckets that the source and its photos lie in, such as `endpoint`, beside those
            in the address of the source; see `storage.objects.address.OPTIONS`. Never credentials.
        photo_column: Column of a table that holds the photos; default: found by its contents.
        execution: How the extractors run the network; by default exactly on a CPU.
        progress: Called with (done, rejected, total) after each written batch; default: a progress bar.
        quiet: Show no progress bar.

    Raises:
        SourceError: the source cannot be used.
        SecretInOptions, UnknownStorageOption: an option of the source is a secret, or does not exist.
        IdsTaken: a source that the store has not seen has other photos under stored ids; nothing was done.
        UnknownSource: the store has no photos of `moved_from`.
        TagsNotKept, BadTag: tags are given that the store cannot keep.
        PruneRefused: too many photos vanished, or a part of the source cannot be listed; nothing was done.
        CardMismatch: the store was made by another model or keeps features in another encoding; nothing was
            read or written.
        InvalidBatch: the encoding is unknown, or there are too few images to learn its projection from.
        StoreLocked: another process writes to the store.
        OutOfSpace: the disk is full; everything committed stays.
        WeightsUnavailable, WeightsRejected, UnknownModel: the model cannot be loaded, here or on a worker.
        BadImageSize: the model does not support this input size.
        CannotCompile: compiling was requested and is not possible on a worker.
        Stalled: nothing was finished within `stall_timeout_s`.
        InvalidRayAddress, CannotJoinRay, RayWithoutAuthentication, NoRayFolder: see `ray_session`.
    """
    if commit_seconds <= 0 or (cpus is not None and cpus < 1):
        raise ValueError("commit_seconds must be above 0 and cpus at least 1")
    if min(batch_size, commit_every) < 1 or (extractors is not None and extractors < 1):
        raise ValueError("batch_size, commit_every and extractors must be at least 1")
    TagChange(add=tuple(tags))  # refuses what cannot be a tag before anything is read
    check_ray()
    started = time.perf_counter()
    store_uri = str(store_uri)
    given_rejections = open_file(rejected_file) if rejected_file else None
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(ProgressBar("index", quiet=quiet or progress is not None))
        card, fresh = card_of(model, image_size, store_uri, features, aggregation)
        model = portable_model(model or card.model, card)
        shown, options = split_options(str(source), source_options)
        source_rows = open_source(
            shown,
            root=root,
            id_prefix=id_prefix,
            follow_links=follow_links,
            options=options,
            photo_column=photo_column,
        )
        listed = Listed(source_rows, whole=moved_from is not None)
        request = Request(
            model=model,
            row_bytes=0,
            extractors=extractors,
            gpus_per_extractor=gpus_per_extractor,
            cpus=cpus,
            batch_size=batch_size,
            commit_every=commit_every,
            trace=str(Path(trace).resolve()) if trace else None,
            scaled_decode=scaled_decode,
            max_megapixels=max_megapixels,
            execution=execution,
            extractor_placement=extractor_placement,
            decoder_placement=decoder_placement,
            source_options=options,
        )
        session = functools.cache(lambda: stack.enter_context(_session()))

        store = open_or_create(
            store_uri,
            card,
            requested=features is not None,
            aggregation=aggregation if fresh else None,
            fresh=fresh,
            learn=functools.partial(
                _learn, session, listed.first, card, store_uri, request, bar, stall_timeout_s
            ),
        )
        place = open_location(store.uri)
        rejections = given_rejections or place / "rejected.csv"
        notes_file = place / "notes.csv"
        tally = Tally(total=listed.first.num_rows, progress=progress or bar.update)
        tally.add_notes(source_rows.notes, uri=shown)
        stack.enter_context(store.lease())
        change = Change(id_prefix, moved_from, prune, prune_share, options, tuple(tags))
        work = stack.enter_context(Work(store, listed, change))
        del listed  # of a large source the first rows are handed over like the others, and not kept
        run = ClusterRun(
            session(),
            store,
            dataclasses.replace(request, row_bytes=store.codec.row_bytes),
            tally,
            bar,
            total=work.listed,
            commit_seconds=commit_seconds,
            stall_timeout_s=stall_timeout_s,
        )
        relearned = None
        for rows in work.parts():
            for part in sample_first(store, rows):
                tally.total = work.listed
                run.extract(part, total=work.listed)
                due = relearn_if_due(store, listed=work.listed, say=bar.say) if tally.extracted else None
                relearned = due or relearned
        tally.total, vanished = work.listed, work.vanished
        tally.add_skipped(source_rows.skipped)
        pruned = remove_rows(store, vanished) if prune else 0
        tally.add_vanished(vanished.photos, vanished.note(pruned=prune))
        advice = relearning_advice(store) if tally.extracted else None
        measure_if_due(store)
        tally.write_rejections(rejections)
        tally.write_notes(notes_file)
    report = report_of(tally, store, rejections, time.perf_counter() - started, run.outcome)
    return dataclasses.replace(
        report,
        missing_from_source=len(vanished.photos),
        pruned=pruned,
        upgraded=work.upgraded,
        notes_file=str(notes_file) if tally.notes else None,
        aggregation=aggregation_kind(store.card),
        relearned_from=relearned.photos if relearned else None,
        relearning_advice=advice,
    )


def _session() -> AbstractContextManager[Any]:
    import ray.data  # noqa: F401 (before the session, which then quietens its log)

    return ray_session(object_store_bytes=OBJECT_STORE_BYTES)


def _learn(
    session: Callable[[], Any],
    listing: pa.Table,
    card: Card,
    store_uri: str,
    request: Request,
    bar: ProgressBar,
    stall_timeout_s: float | None,
    channels: int,
) -> NDArray[np.float32]:
    """Learn the projection of a store to be made, see `learn_projection`."""
    watch = watch_of(session(), store_uri, bar, total=SAMPLE_IMAGES, stall_timeout_s=stall_timeout_s)
    return learn_projection(session(), listing, card, store_uri, request, watch, channels=channels)

"""A short trial of an index run: its own stages on a few photos, in this process, without Ray.

Times are those of the processor, so that other load on the machine counts little. The store that it makes is
real, and is removed again.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.custom.reference import portable_model
from models.runtime.execution import Execution
from pipelines.defaults import BATCH_SIZE
from pipelines.demo.dataset import draw_city
from pipelines.indexing.commits import Committer
from pipelines.indexing.decode import decode
from pipelines.indexing.extract import Extract
from pipelines.indexing.opening import open_or_create
from pipelines.indexing.projection import learn_projection_here
from pipelines.indexing.reconcile import Change, reconcile
from pipelines.indexing.tally import Tally
from pipelines.indexing.write import write
from pipelines.plan.errors import TrialFailed
from pipelines.plan.figures import Figures
from pipelines.progress import ProgressBar
from pipelines.sources import list_source
from storage.card import Card
from storage.store import Store

__all__ = ["measure"]

MAX_SECONDS = 120.0
DRAWN = 48  # different pictures where no photos are given
STAGES = ("decode", "extract", "write", "commit")


def measure(
    card: Card,
    model: str,
    *,
    images: int,
    photos: str | None,
    execution: Execution,
    scaled_decode: bool = False,
    aggregation: str | None = None,
    bar: ProgressBar | None = None,
) -> Figures:
    """Index some photos into a store of its own, and measure what each stage takes.

    Args:
        card: Of the planned store, without its projection and aggregation.
        model: Name or weights file.
        images: Number of images; fewer where they take longer than `MAX_SECONDS`.
        photos: A source of `pipelines.sources`, of which a sample is taken; None: pictures are drawn.
        execution: How the network is run.
        scaled_decode: Whether JPEGs are decoded at a reduced size.
        aggregation: As of `index`.
        bar: Shows progress.

    Raises:
        SourceError: the photos cannot be listed.
        TrialFailed: none of them can be used.
        WeightsUnavailable, WeightsRejected, UnknownModel: the model cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="placeray-plan-") as folder:
        listing = _listing(Path(folder), images, photos)
        trace = str(Path(folder, "trace.jsonl"))
        portable = portable_model(model, card)
        store = open_or_create(
            str(Path(folder, "store")),
            card,
            requested=False,
            aggregation=aggregation,
            fresh=True,
            learn=lambda channels: learn_projection_here(
                listing, card, portable, execution, channels=channels
            ),
        )
        device = _run(store, model, listing, trace, execution, scaled_decode, bar)
        return _figures(store, listing, trace, photos, device)


def _listing(folder: Path, images: int, photos: str | None) -> pa.Table:
    """Return an even sample of the photos, or drawn pictures as often as needed."""
    if photos is not None:
        listing = list_source(photos)
        listing = listing.filter(pc.is_null(listing["rejected"]))
        if not listing.num_rows:
            raise TrialFailed(f"{photos} has no photo that can be used: give another folder or listing")
        chosen = np.unique(np.linspace(0, listing.num_rows - 1, min(images, listing.num_rows)).astype(int))
        return listing.take(pa.array(chosen))
    city = draw_city(folder / "city", seed=0, database_images=min(images, DRAWN), query_images=1)
    drawn = sorted(Path(city.folder).glob("images/*/database/*.jpg"))
    for copy in range(-(-images // len(drawn)) - 1):
        for path in drawn[: images - (copy + 1) * len(drawn)]:
            os.link(path, path.with_name(f"{copy}{path.name}"))
    return list_source(drawn[0].parent)


def _run(
    store: Store,
    model: str,
    listing: pa.Table,
    trace: str,
    execution: Execution,
    scaled_decode: bool,
    bar: ProgressBar | None,
) -> str | None:
    """Index the listing in this process; return the name of the GPU that the model ran on."""
    import torch

    options = {"store_uri": store.uri, "card": store.card.to_json(), "trace": trace}
    threads = torch.get_num_threads()
    tally = Tally(total=listing.num_rows, progress=bar.update if bar else lambda *_: None)
    try:
        with store.lease():
            work = reconcile(store, listing, Change()).work
            extract = Extract(model=model, threads=1, execution=execution, batch_size=BATCH_SIZE, **options)
            started = time.monotonic()
            done = []
            for batch in _batches(work):
                decoded = decode(batch, card=options["card"], trace=trace, scaled=scaled_decode)
                done.append(write(extract(decoded), **options))
                if time.monotonic() - started > MAX_SECONDS:
                    break
            Committer(store, tally, commit_every=1 << 30, commit_seconds=1e9, trace=trace).commit_all(done)
    finally:
        torch.set_num_threads(threads)
    device = extract.extractor.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _batches(work: pa.Table) -> list[pa.Table]:
    starts = range(0, work.num_rows, BATCH_SIZE)
    return [work.slice(start, BATCH_SIZE).combine_chunks() for start in starts]


def _figures(store: Store, listing: pa.Table, trace: str, photos: str | None, device: str | None) -> Figures:
    seconds: dict[str, float] = defaultdict(float)
    rows: dict[str, int] = defaultdict(int)
    for text in Path(trace).read_text().splitlines():
        line = json.loads(text)
        wall = line["stage"] == "extract" and device is not None
        seconds[line["stage"]] += line["end_s"] - line["begin_s"] if wall else line["cpu_s"]
        rows[line["stage"]] += line["rows"]
    count = store.count
    if not count:
        raise TrialFailed("none of the photos of the trial can be used: run placeray index to see why")
    each = {stage: seconds[stage] / max(1, rows[stage]) for stage in STAGES}
    folder = Path(store.uri)
    return Figures(
        images=count,
        photos=photos or "drawn pictures of 640 x 480",
        cpu=_cpu_name(),
        decode_s=each["decode"],
        extract_s=each["extract"],
        write_s=each["write"],
        commit_s=seconds["commit"],
        photo_bytes=_mean_size(listing),
        feature_bytes=_size(folder / "features") / count,
        row_bytes=_size(folder / "records.lance" / "data") / count,
        on_gpu=device,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mean_size(listing: pa.Table) -> float | None:
    """Return the mean size of the photos in bytes; None where they are not files."""
    paths = [Path(uri) for uri in listing["uri"].to_pylist()]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return sum(sizes) / len(sizes) if sizes else None


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

"""How long a run takes, what it stores and what that costs: arithmetic on the figures of one image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pipelines.defaults import COMMIT_EVERY, COMMIT_SECONDS
from pipelines.indexing.plan import SHARD_BYTES
from pipelines.plan.errors import NoGpuFigure
from pipelines.plan.figures import Figures

__all__ = ["Estimate", "Prices", "Workload", "estimate"]

# Ray around an image (workers, object store, driver), measured: docs/guides/ten-million-images.md.
RAY_CORE_S = 0.0020
# Requests of a commit to a bucket beside its shards, as tests/pipelines/plan counts them, and of the lease.
WRITES_PER_COMMIT, READS_PER_COMMIT = 7, 3
LEASE_SECONDS = 5.0
HOURS_PER_MONTH = 730.0


@dataclass(frozen=True)
class Workload:
    """What is planned.

    Attributes:
        images: Number of images.
        cores: Cores of all nodes that the run may use.
        gpus: GPUs that run the model; 0: cores do.
        gpu_images_per_s: Images that one of them processes per second; None: what the trial measured.
        bucket: Whether the store lies in a bucket.
        photos_in_bucket: Whether the photos do.
    """

    images: int
    cores: float
    gpus: int = 0
    gpu_images_per_s: float | None = None
    bucket: bool = False
    photos_in_bucket: bool = False


@dataclass(frozen=True)
class Prices:
    """Prices in one currency; None: not given.

    Attributes:
        core_hour: Of a core for an hour, with its share of a node's memory.
        gpu_hour: Of a GPU for an hour.
        gb_month: Of 10^9 bytes in the store for a month.
        thousand_writes: Of 1,000 requests that write or list.
        thousand_reads: Of 1,000 requests that read.
    """

    core_hour: float | None = None
    gpu_hour: float | None = None
    gb_month: float | None = None
    thousand_writes: float | None = None
    thousand_reads: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        images_per_s: Rate of the whole run.
        hours: Its duration, without the start of Ray and of nodes.
        limit: What it waits for: cores, gpus or commits.
        core_hours, gpu_hours: What it occupies.
        cores_for_gpus: Cores that keep the GPUs busy; None without GPUs.
        store_gb: 10^9 bytes that it stores.
        features_gb, rows_gb: Parts of that.
        photos_gb: 10^9 bytes that it reads; None: unknown.
        commits: Number of versions that it makes.
        writes, reads: Requests to buckets.
        cost: Amount for each part that has a price: compute, requests, storage_per_month.
        assumed: Sentences on what all of that rests on.
    """

    images_per_s: float
    hours: float
    limit: str
    core_hours: float
    gpu_hours: float
    cores_for_gpus: float | None
    store_gb: float
    features_gb: float
    rows_gb: float
    photos_gb: float | None
    commits: int
    writes: int
    reads: int
    cost: dict[str, float] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)


def estimate(work: Workload, figures: Figures, prices: Prices) -> Estimate:
    """Return what a run takes.

    Raises:
        NoGpuFigure: it has GPUs, and neither the trial nor the user says how fast one is.
    """
    gpu_rate = _gpu_rate(work, figures)
    around_s = figures.decode_s + figures.write_s + RAY_CORE_S
    core_s = around_s + (0.0 if gpu_rate else figures.extract_s)
    rates = {"cores": work.cores / core_s, "commits": COMMIT_EVERY / max(figures.commit_s, 1e-9)}
    if gpu_rate:
        rates["gpus"] = work.gpus * gpu_rate
    limit = min(rates, key=lambda name: rates[name])
    seconds = work.images / rates[limit]
    commits = max(math.ceil(work.images / COMMIT_EVERY), math.ceil(seconds / COMMIT_SECONDS))
    writes, reads = _requests(work, figures, seconds, commits)
    features, rows = (work.images * size / 1e9 for size in (figures.feature_bytes, figures.row_bytes))
    hours = seconds / 3600
    made = Estimate(
        images_per_s=rates[limit],
        hours=hours,
        limit=limit,
        core_hours=work.cores * hours,
        gpu_hours=work.gpus * hours,
        cores_for_gpus=work.gpus * gpu_rate * around_s if gpu_rate else None,
        store_gb=features + rows,
        features_gb=features,
        rows_gb=rows,
        photos_gb=None if figures.photo_bytes is None else work.images * figures.photo_bytes / 1e9,
        commits=commits,
        writes=writes,
        reads=reads,
        assumed=_assumed(work, figures, gpu_rate),
    )
    made.cost.update(_cost(made, prices))
    return made


def _gpu_rate(work: Workload, figures: Figures) -> float | None:
    """Return the images per second of one GPU; None without GPUs."""
    if not work.gpus:
        return None
    if work.gpu_images_per_s is not None:
        return work.gpu_images_per_s
    if figures.on_gpu is None:
        raise NoGpuFigure(
            "the trial ran on a CPU, so it does not tell how fast a GPU is: run plan on a machine with one, "
            "or give --gpu-images-per-s"
        )
    return 1.0 / figures.extract_s


def _requests(work: Workload, figures: Figures, seconds: float, commits: int) -> tuple[int, int]:
    """Return the requests that write and that read."""
    writes = reads = 0
    if work.bucket:
        a_shard = max(1, min(COMMIT_EVERY, int(SHARD_BYTES // max(1.0, figures.feature_bytes))))
        shards = max(commits, math.ceil(work.images / a_shard)) if figures.feature_bytes else 0
        writes += shards + commits * WRITES_PER_COMMIT + math.ceil(seconds / LEASE_SECONDS)
        reads += commits * READS_PER_COMMIT
    if work.photos_in_bucket:
        writes += math.ceil(work.images / 1000)  # pages of the listing, which are priced as writes
        reads += work.images
    return writes, reads


def _cost(made: Estimate, prices: Prices) -> dict[str, float]:
    cost = {}
    if prices.core_hour is not None or prices.gpu_hour is not None:
        cost["compute"] = made.core_hours * (prices.core_hour or 0) + made.gpu_hours * (prices.gpu_hour or 0)
    if prices.thousand_writes is not None or prices.thousand_reads is not None:
        written = made.writes * (prices.thousand_writes or 0)
        cost["requests"] = (written + made.reads * (prices.thousand_reads or 0)) / 1000
    if prices.gb_month is not None:
        cost["storage_per_month"] = made.store_gb * prices.gb_month
    return cost


def _assumed(work: Workload, figures: Figures, gpu_rate: float | None) -> list[str]:
    model = f"{1e3 * figures.extract_s:.2f} the model, " if not gpu_rate else ""
    sentences = [
        f"measured on {figures.images} images ({figures.photos}) on {figures.cpu}: core ms per image "
        f"{1e3 * figures.decode_s:.2f} decoding, {model}{1e3 * figures.write_s:.2f} writing; "
        f"{1e3 * figures.commit_s:.0f} core ms of the driver per commit",
        f"Ray around it takes {1e3 * RAY_CORE_S:.1f} ms of a core per image, as measured on two cores, and "
        "grows in proportion to the cores",
        f"all {work.cores:g} cores are as fast as those of the trial, are free, and wait for nothing",
        "descriptors that a store learns by itself, the start of Ray and of nodes are not counted",
    ]
    if gpu_rate:
        given = "as given" if work.gpu_images_per_s is not None else f"as measured on {figures.on_gpu}"
        sentences.append(f"a GPU processes {gpu_rate:.1f} images per second, {given}")
    if work.bucket:
        sentences.append(
            f"a commit to a bucket takes {WRITES_PER_COMMIT} writes and {READS_PER_COMMIT} reads beside its "
            f"shards, the lease a write every {LEASE_SECONDS:g} s; nothing is repeated"
        )
    return sentences

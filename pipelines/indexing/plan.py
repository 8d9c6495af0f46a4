"""How an index run uses the resources of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.photo_limits import MAX_MEGAPIXELS
from models.runtime.execution import AS_USUAL, Execution
from pipelines.defaults import BATCH_SIZE, COMMIT_EVERY

__all__ = ["DECODE_CPUS", "WRITE_CPUS", "Plan", "make_plan"]

# Shares of a core; they differ so that Ray Data does not fuse the stages into one.
DECODE_CPUS = 0.4
WRITE_CPUS = 0.1
SHARD_BYTES = 64 << 20
MANY_IMAGES, MAX_CPU_EXTRACTORS = 500, 8


@dataclass(frozen=True)
class Plan:
    """Resources and sizes of an index run.

    Attributes:
        extractors: Number of actors that run the model.
        extractor_cpus: CPU cores reserved for each.
        extractor_gpus: GPUs reserved for each.
        actors_per_stage: Maximum number of actors that decode, and that write. 0: a short run, for which
            starting actors takes longer than they save.
        threads: Torch threads in each extractor; 0 keeps torch's own choice.
        batch_size: Images per forward pass and per decoded batch.
        shard_rows: Images per file of local features.
        commit_every: Images between two commits.
        trace: File that gets one JSON line for each batch of each stage, or None.
        scaled_decode: Decode JPEGs at a reduced size where the network's input is smaller still.
        max_megapixels: Largest image.
        execution: How the extractors run the network.
    """

    extractors: int
    extractor_cpus: float
    extractor_gpus: float
    actors_per_stage: int
    threads: int
    batch_size: int
    shard_rows: int
    commit_every: int
    trace: str | None
    scaled_decode: bool = False
    max_megapixels: float = MAX_MEGAPIXELS
    execution: Execution = AS_USUAL


def make_plan(
    ray: Any,
    *,
    images: int,
    row_bytes: int,
    extractors: int | None = None,
    gpus_per_extractor: float | None = None,
    batch_size: int = BATCH_SIZE,
    commit_every: int = COMMIT_EVERY,
    trace: str | Path | None = None,
    scaled_decode: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    execution: Execution = AS_USUAL,
) -> Plan:
    """Divide the cluster that `ray` is connected to among the stages.

    Args:
        ray: The connected `ray` module.
        images: Number of images to process.
        row_bytes: Size of the encoded features of an image.
        extractors, gpus_per_extractor, batch_size, commit_every, trace, scaled_decode, max_megapixels,
            execution: See `pipelines.indexing.job.index`.
    """
    cluster = ray.cluster_resources()
    cpus, gpus = cluster.get("CPU", 1.0), cluster.get("GPU", 0.0)
    if gpus_per_extractor is None:
        gpus_per_extractor = 1.0 if gpus else 0.0
    if extractors is None:
        extractors = int(gpus / gpus_per_extractor) if gpus_per_extractor else _cpu_extractors(cpus, images)
        extractors = max(1, extractors)
    # Never the whole machine: without a share for decoding and writing, the run would block.
    extractor_cpus = min(1.0, 0.5 * cpus / extractors)
    spare = max(1, int((cpus - extractors * extractor_cpus) / (DECODE_CPUS + WRITE_CPUS)))
    return Plan(
        extractors=extractors,
        extractor_cpus=extractor_cpus,
        extractor_gpus=gpus_per_extractor,
        actors_per_stage=spare if images >= MANY_IMAGES else 0,
        threads=0 if gpus_per_extractor else max(1, int(cpus) // extractors),
        batch_size=batch_size,
        # A small index still shows progress in eighths; a large one gets shards near SHARD_BYTES.
        shard_rows=min(commit_every, max(1, SHARD_BYTES // row_bytes), max(32, images // 8)),
        commit_every=commit_every,
        trace=str(Path(trace).resolve()) if trace else None,
        scaled_decode=scaled_decode,
        max_megapixels=max_megapixels,
        execution=execution,
    )


def _cpu_extractors(cpus: float, images: int) -> int:
    """Return the number of single-threaded extractors, which are 1.5 times as fast as one with many threads.

    For few images, starting a second actor takes longer than it saves, and each needs 0.7 GB of memory.
    """
    return min(int(cpus), MAX_CPU_EXTRACTORS) if images >= MANY_IMAGES else 1

"""The flow of an index run: stages on Ray Data, planned to the cluster, and commits from the driver."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.runtime.execution import AS_USUAL, Execution
from pipelines.indexing.stages import METADATA, Extract, InActor, decode, raise_failure, span, write
from storage.store import Store
from storage.table.vectors import row_schema

__all__ = ["Plan", "Progress", "Tally", "commit_all", "make_plan", "written_rows"]

Progress = Callable[[int, int, int], None]

# Shares of a core; they differ so that Ray Data does not fuse the stages into one.
DECODE_CPUS = 0.4
WRITE_CPUS = 0.1
SHARD_BYTES = 64 << 20
MANY_IMAGES, MAX_CPU_EXTRACTORS = 500, 8


@dataclass(frozen=True)
class Plan:
    """How a run uses the cluster's resources.

    Attributes:
        extractors: Actors that run the model.
        extractor_cpus: Cores booked for each.
        extractor_gpus: GPUs booked for each.
        actors_a_stage: Actors that decode, and that write, at most: as many as there is work for. 0: a short
            run, for which starting actors costs more than it brings.
        threads: Torch's threads in each; 0 leaves torch's own choice.
        batch_size: Images in one forward pass, and decoded at once.
        shard_rows: Images in one file of local features.
        commit_every: Images between two commits.
        trace: File that gets one JSON line for each batch of each stage, or None.
        scaled_decode: Whether JPEGs may be decoded smaller where the network's input is smaller still.
        execution: How the actors run the network.
    """

    extractors: int
    extractor_cpus: float
    extractor_gpus: float
    actors_a_stage: int
    threads: int
    batch_size: int
    shard_rows: int
    commit_every: int
    trace: str | None
    scaled_decode: bool = False
    execution: Execution = AS_USUAL


def make_plan(
    ray: Any,
    *,
    images: int,
    row_bytes: int,
    extractors: int | None = None,
    gpus_per_extractor: float | None = None,
    batch_size: int = 32,
    commit_every: int = 1024,
    trace: str | Path | None = None,
    scaled_decode: bool = False,
    execution: Execution = AS_USUAL,
) -> Plan:
    """Share out the cluster that `ray` is connected to.

    Args:
        ray: Connected.
        images: How many there are to do.
        row_bytes: Of an image's encoded features.
        extractors, gpus_per_extractor, batch_size, commit_every, trace, scaled_decode, execution: As of
            `pipelines.indexing.job.index`.
    """
    cluster = ray.cluster_resources()
    cpus, gpus = cluster.get("CPU", 1.0), cluster.get("GPU", 0.0)
    if gpus_per_extractor is None:
        gpus_per_extractor = 1.0 if gpus else 0.0
    if extractors is None:
        extractors = int(gpus / gpus_per_extractor) if gpus_per_extractor else _cpu_extractors(cpus, images)
        extractors = max(1, extractors)
    # Never the whole machine: decoding and writing need their share, or nothing moves.
    extractor_cpus = min(1.0, 0.5 * cpus / extractors)
    spare = max(1, int((cpus - extractors * extractor_cpus) / (DECODE_CPUS + WRITE_CPUS)))
    return Plan(
        extractors=extractors,
        extractor_cpus=extractor_cpus,
        extractor_gpus=gpus_per_extractor,
        actors_a_stage=spare if images >= MANY_IMAGES else 0,
        threads=0 if gpus_per_extractor else max(1, int(cpus) // extractors),
        batch_size=batch_size,
        # A small index still shows progress in eighths; a large one gets shards near SHARD_BYTES.
        shard_rows=min(commit_every, max(1, SHARD_BYTES // row_bytes), max(32, images // 8)),
        commit_every=commit_every,
        trace=str(Path(trace).resolve()) if trace else None,
        scaled_decode=scaled_decode,
        execution=execution,
    )


def _cpu_extractors(cpus: float, images: int) -> int:
    """Return how many one-thread actors to use: they beat one actor with as many threads by half.

    For few images the start of a second actor costs more than it brings, and each takes 0.7 GB.
    """
    return min(int(cpus), MAX_CPU_EXTRACTORS) if images >= MANY_IMAGES else 1


def written_rows(
    ray: Any, work: pa.Table, store: Store, model: str, plan: Plan, *, extract: type[Extract] = Extract
) -> Iterator[pa.Table]:
    """Decode, extract and write on the cluster; yield what is done, without pixels and features.

    Args:
        ray: Connected, with `ray.data` imported.
        work: Listed rows with stored_sha256, stored_uri and amend.
        store: Whose lease is held.
        model: Name or weights file, handed to the actors.
        plan: From `make_plan`.
        extract: Class of the actors.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    size = plan.batch_size
    blocks = [work.slice(at, size) for at in range(0, work.num_rows, size)]
    options = {"card": store.card.to_json(), "trace": plan.trace}

    def workers(stage: Callable[..., pa.Table], **more: Any) -> dict[str, Any]:
        if not plan.actors_a_stage:
            return {"fn": stage, "fn_kwargs": more | options}
        # Ray ends and starts actors with the load: two are few enough to keep.
        pool = ray.data.ActorPoolStrategy(min_size=min(2, plan.actors_a_stage), max_size=plan.actors_a_stage)
        return {"fn": InActor, "fn_constructor_kwargs": {"stage": stage} | more | options, "compute": pool}

    rows = (
        ray.data.from_arrow(blocks)
        .map_batches(
            **workers(decode, scaled=plan.scaled_decode),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=DECODE_CPUS,
        )
        .map_batches(
            extract,
            batch_format="pyarrow",
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=plan.extractors),
            num_cpus=plan.extractor_cpus,
            num_gpus=plan.extractor_gpus,
            fn_constructor_kwargs={
                "model": model,
                "store_uri": store.uri,
                "threads": plan.threads,
                "execution": plan.execution,
                "batch_size": size,
                **options,
            },
        )
        .map_batches(
            **workers(write, store_uri=store.uri),
            batch_format="pyarrow",
            batch_size=plan.shard_rows,
            num_cpus=WRITE_CPUS,
        )
    )
    yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")


@dataclass
class Tally:
    """Counts rows as they come back, and keeps the rejected."""

    total: int
    progress: Progress
    extracted: int = 0
    unchanged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    refused: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        """How many images could not be used."""
        return len(self.refused)

    def add(self, rows: pa.Table) -> None:
        """Count rows that came back, and report progress."""
        refused = rows.filter(pc.is_valid(rows["rejected"]))
        self.refused += refused.select(["image_id", "uri", "rejected", "message"]).to_pylist()
        self.reasons.update(refused["rejected"].to_pylist())
        self.unchanged += pc.sum(rows["unchanged"]).as_py() or 0
        self.extracted += rows.num_rows - rows["shard"].null_count
        self.progress(self.extracted + self.unchanged + self.rejected, self.rejected, self.total)

    def write_rejections(self, path: Path) -> None:
        """List the rejected of this run; a run without any leaves no stale file behind."""
        if not self.refused:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image_id", "uri", "reason", "message"])
            table.writerows(list(row.values()) for row in sorted(self.refused, key=lambda r: r["image_id"]))
        temporary.replace(path)


def commit_all(store: Store, rows: Iterator[pa.Table], tally: Tally, plan: Plan) -> None:
    """Commit rows as they come, every `plan.commit_every`; what a worker reported as failed is raised."""
    schema = row_schema(store.card)
    pending: list[pa.Table] = []

    def commit() -> None:
        batch = pa.concat_tables(pending).cast(schema)
        pending.clear()
        if batch.num_rows:
            with span(plan.trace, "commit", batch.num_rows) as line:
                line["bytes"] = batch.nbytes
                store.commit(batch)

    for batch in rows:
        raise_failure(batch)
        tally.add(batch)
        if (amended := batch.filter(pc.and_(batch["unchanged"], batch["amend"]))).num_rows:
            store.amend(amended.select(["image_id", *METADATA]))
        pending.append(batch.filter(pc.is_valid(batch["shard"])).select(schema.names))
        if sum(table.num_rows for table in pending) >= plan.commit_every:
            commit()
    if pending:
        commit()

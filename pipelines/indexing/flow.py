"""The data flow of an index run: three stages on Ray Data, and commits from the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.indexing.actor import StageActor
from pipelines.indexing.columns import amended_columns
from pipelines.indexing.decode import decode
from pipelines.indexing.extract import Extract
from pipelines.indexing.failures import raise_failure
from pipelines.indexing.plan import DECODE_CPUS, WRITE_CPUS, Plan
from pipelines.indexing.tally import Tally
from pipelines.indexing.trace import span
from pipelines.indexing.write import write
from storage.store import Store
from storage.table.schema import row_schema

__all__ = ["commit_all", "written_rows"]


def written_rows(
    ray: Any, work: pa.Table, store: Store, model: str, plan: Plan, *, extract: type[Extract] = Extract
) -> Iterator[pa.Table]:
    """Decode, extract and write on the cluster, and yield the finished rows without pixels and features.

    Args:
        ray: The connected `ray` module, with `ray.data` imported.
        work: Listed rows with stored_sha256, stored_uri and amend.
        store: The store; the caller holds its lease.
        model: Name or weights file, passed to the actors.
        plan: The result of `make_plan`.
        extract: Class of the extractor actors.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    size = plan.batch_size
    blocks = [work.slice(start, size) for start in range(0, work.num_rows, size)]
    options = {"card": store.card.to_json(), "trace": plan.trace}

    def workers(stage: Callable[..., pa.Table], **more: Any) -> dict[str, Any]:
        if not plan.actors_per_stage:
            return {"fn": stage, "fn_kwargs": more | options}
        # Ray stops and starts actors with the load; a minimum of two is small enough to keep running.
        pool = ray.data.ActorPoolStrategy(
            min_size=min(2, plan.actors_per_stage), max_size=plan.actors_per_stage
        )
        return {"fn": StageActor, "fn_constructor_kwargs": {"stage": stage} | more | options, "compute": pool}

    rows = (
        ray.data.from_arrow(blocks)
        .map_batches(
            **workers(decode, scaled=plan.scaled_decode, max_megapixels=plan.max_megapixels),
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


def commit_all(store: Store, rows: Iterator[pa.Table], tally: Tally, plan: Plan) -> None:
    """Commit rows as they arrive, `plan.commit_every` at a time.

    Raises:
        PlacerayError: a failure that a worker reported.
    """
    schema = row_schema(store.card, optional=("source", "tags"))
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
        amended = batch.filter(pc.and_(batch["unchanged"], batch["amend"]))
        if amended.num_rows:
            store.amend(amended.select(amended_columns(store.card)))
        pending.append(batch.filter(pc.is_valid(batch["shard"])).select(schema.names))
        if sum(table.num_rows for table in pending) >= plan.commit_every:
            commit()
    if pending:
        commit()

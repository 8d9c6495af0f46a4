"""One flow of an index run: decoders and extractors on Ray Data, which hand over blocks by reference."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import pyarrow as pa

from pipelines.indexing.actor import StageActor
from pipelines.indexing.decode import decode
from pipelines.indexing.extract import Extract
from pipelines.indexing.plan import DECODE_CPUS, Plan
from pipelines.placement import Placement
from storage.card import Card

__all__ = ["Block", "Flow", "FlowEnded", "Stage", "Target"]

_QUEUE_BLOCKS = 4
_JOIN_S = 10.0


class Target(Protocol):
    """What a flow extracts for: a store, or one that is still to be made."""

    @property
    def uri(self) -> str:
        """The store's path or address."""

    @property
    def card(self) -> Card:
        """The store's card."""


class FlowEnded(Exception):
    """The flow has handed over its last block."""


@dataclass(frozen=True)
class Block:
    """Extracted rows in the object store.

    Attributes:
        ref: Reference to a table.
        rows: Its number of rows.
    """

    ref: Any
    rows: int


@dataclass(frozen=True)
class Stage:
    """State of a stage, as Ray Data's scheduler sees it.

    Attributes:
        name: `decoder` or `extractor`.
        batches: Number of batches under way.
        actors: Number of actors that work; 0 where tasks do.
        starting: Number of actors that load the model, or wait for a node with room.
        restarting: Number of actors that were lost with batches, and are starting again.
    """

    name: str
    batches: int
    actors: int
    starting: int
    restarting: int

    @property
    def blocked(self) -> bool:
        """Whether batches wait for actors that do not work yet."""
        return self.restarting > 0 or (self.starting > 0 and not self.actors)


class Flow:
    """Runs the stages in a thread, so that the job can watch the cluster while it waits for rows.

    A flow never grows or shrinks; a job that loses nodes closes it and makes another one that fits.

    Args:
        ray: The connected `ray` module, with `ray.data` imported.
        work: Listed rows with stored_sha256, stored_uri, amend and number.
        store: The store; the caller holds its lease.
        plan: The result of `make_plan`.
        extract: Class of the extractor actors.
    """

    def __init__(
        self,
        ray: Any,
        work: pa.Table,
        store: Target,
        plan: Plan,
        *,
        extract: type[Extract] = Extract,
    ) -> None:
        dataset = _dataset(ray, work, store, plan, extract)
        # Ray Data's public iterators block until the first row, and cannot be ended from outside.
        self._executor = dataset._create_executor()
        self._blocks: queue.Queue[Block | BaseException] = queue.Queue(_QUEUE_BLOCKS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(dataset,), name="flow", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> Block | None:
        """Return the next block; None if there is none within `timeout_s`.

        Raises:
            FlowEnded: there are no more.
            Exception: what ended the flow.
        """
        try:
            block = self._blocks.get(timeout=timeout_s) if timeout_s else self._blocks.get_nowait()
        except queue.Empty:
            return None
        if isinstance(block, BaseException):
            raise block
        return block

    def stages(self) -> list[Stage]:
        """Return the state of the stages, in their order; empty before the first one starts."""
        operators = [
            operator
            for operator in list(getattr(self._executor, "_topology", None) or ())
            if operator.name.startswith("MapBatches")
        ]
        stages = []
        for name, operator in zip(("decoder", "extractor"), operators, strict=False):
            info = operator.get_actor_info()
            alive = info.running - info.restarting  # Ray Data counts these among those running
            stages.append(Stage(name, operator.num_active_tasks(), alive, info.pending, info.restarting))
        return stages

    def close(self) -> None:
        """End the flow and its actors; rows that were not handed over are lost."""
        self._closed.set()
        self._executor.shutdown(force=True)
        self._thread.join(_JOIN_S)

    def __enter__(self) -> Flow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, dataset: Any) -> None:
        try:
            for bundle in dataset._build_bundle_iterator(self._executor):
                if self._closed.is_set():  # before the execution had begun
                    self._executor.shutdown(force=True)
                    return
                for entry in bundle.blocks:
                    self._put(Block(entry.ref, entry.metadata.num_rows))
            self._put(FlowEnded())
        except BaseException as error:
            self._put(error)

    def _put(self, item: Block | BaseException) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._blocks.put(item, timeout=0.5)
                return


def _dataset(ray: Any, work: pa.Table, store: Target, plan: Plan, extract: type[Extract]) -> Any:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    request = plan.request
    size = request.batch_size
    blocks = [work.slice(start, size) for start in range(0, work.num_rows, size)]
    options = {"card": store.card.to_json(), "trace": request.trace}
    decoding = {
        "scaled": request.scaled_decode,
        "max_megapixels": request.max_megapixels,
        "source_options": dict(request.source_options),
        **options,
    }
    return (
        ray.data.from_arrow(blocks)
        .map_batches(
            **_decoders(ray, decode, plan.decoders, decoding),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=DECODE_CPUS,
            **_placed(request.decoder_placement),
        )
        .map_batches(
            extract,
            batch_format="pyarrow",
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=plan.extractors),
            num_cpus=plan.extractor_cpus,
            num_gpus=plan.extractor_gpus,
            **_placed(request.extractor_placement),
            fn_constructor_kwargs={
                "model": request.model,
                "store_uri": store.uri,
                "threads": plan.threads,
                "execution": request.execution,
                "batch_size": size,
                **options,
            },
        )
    )


def _decoders(
    ray: Any, stage: Callable[..., pa.Table], actors: int, options: dict[str, Any]
) -> dict[str, Any]:
    if not actors:
        return {"fn": stage, "fn_kwargs": options}
    # Ray stops and starts actors with the load; a minimum of two is small enough to keep running.
    pool = ray.data.ActorPoolStrategy(min_size=min(2, actors), max_size=actors)
    return {"fn": StageActor, "fn_constructor_kwargs": {"stage": stage} | options, "compute": pool}


def _placed(placement: Placement) -> dict[str, Any]:
    return {
        **({"resources": dict(placement.resources)} if placement.resources else {}),
        **({"label_selector": dict(placement.labels)} if placement.labels else {}),
    }

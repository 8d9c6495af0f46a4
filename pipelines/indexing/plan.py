"""How an index run uses what is free on the nodes of a Ray cluster."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.photo_limits import MAX_MEGAPIXELS
from models.runtime.execution import AS_USUAL, Execution
from pipelines.defaults import BATCH_SIZE, COMMIT_EVERY
from pipelines.indexing.cluster import Node
from pipelines.placement import ANYWHERE, Placement
from pipelines.progress import counted

__all__ = ["DECODE_CPUS", "WRITE_CPUS", "Plan", "Request", "Worker", "make_plan", "minimum"]

# Shares of a core; they differ so that Ray Data does not fuse the stages into one.
EXTRACT_CPUS, DECODE_CPUS, WRITE_CPUS = 0.5, 0.4, 0.1
EXTRACTORS_PER_WRITER = 4
SHARD_BYTES = 64 << 20
MANY_IMAGES, MAX_CPU_EXTRACTORS = 500, 8
_ROUNDING = 1e-6  # Ray counts in ten thousandths


@dataclass(frozen=True)
class Request:
    """What the user of an index run requested; see `pipelines.indexing.job.index`."""

    model: str
    row_bytes: int
    extractors: int | None = None
    extractor_cpus: float | None = None
    gpus_per_extractor: float | None = None
    cpus: float | None = None
    batch_size: int = BATCH_SIZE
    commit_every: int = COMMIT_EVERY
    trace: str | None = None
    scaled_decode: bool = False
    max_megapixels: float = MAX_MEGAPIXELS
    execution: Execution = AS_USUAL
    extractor_placement: Placement = ANYWHERE
    decoder_placement: Placement = ANYWHERE
    source_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Worker:
    """What one actor or task takes from its node.

    Attributes:
        resources: Amounts by name, `CPU` and `GPU` among them.
        labels: Labels that the node must have.
    """

    resources: Mapping[str, float]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """Workers and sizes of a flow.

    Attributes:
        request: What the user requested.
        extractors: Number of actors that run the model.
        extractor_cpus: CPU cores reserved for each.
        extractor_gpus: GPUs reserved for each.
        decoders: Maximum number of actors that decode. 0: a short run, for which starting actors takes
            longer than they save; tasks decode.
        writers: Number of actors that write.
        threads: Torch threads in each extractor; 0 keeps torch's own choice.
        shard_rows: Images per file of local features.
    """

    request: Request
    extractors: int
    extractor_cpus: float
    extractor_gpus: float
    decoders: int
    writers: int
    threads: int
    shard_rows: int

    def workers(self) -> Iterator[Worker]:
        """Yield what each worker takes."""
        place = self.request.extractor_placement
        gpus = {"GPU": self.extractor_gpus} if self.extractor_gpus else {}
        for _ in range(self.extractors):
            yield Worker({"CPU": self.extractor_cpus, **gpus, **place.resources}, place.labels)
        place = self.request.decoder_placement
        for _ in range(max(1, self.decoders)):
            yield Worker({"CPU": DECODE_CPUS, **place.resources}, place.labels)
        for _ in range(self.writers):
            yield Worker({"CPU": WRITE_CPUS}, {})

    def describe(self) -> str:
        """Return its workers as text for people."""
        gpus = f" and {self.extractor_gpus:g} GPU" if self.extractor_gpus else ""
        parts = [f"{counted(self.extractors, 'extractor')} ({self.extractor_cpus:g} CPU{gpus} each)"]
        parts += [counted(self.decoders, "decoder")] if self.decoders else []
        return ", ".join([*parts, counted(self.writers, "writer")])

    def fits(self, nodes: Sequence[Node]) -> bool:
        """Return whether all workers find a place: the largest first, each on the first node with room."""
        free = [dict(node.free) for node in nodes]
        for worker in sorted(self.workers(), key=_size, reverse=True):
            for node, left in zip(nodes, free, strict=True):
                if _has_room(worker, left, node.labels):
                    for name, amount in worker.resources.items():
                        left[name] = left.get(name, 0.0) - amount
                    break
            else:
                return False
        return True


def make_plan(nodes: Sequence[Node], request: Request, *, images: int) -> Plan | None:
    """Divide what is free among the stages, with as many extractors as find a place.

    Args:
        nodes: The nodes that are alive.
        request: What the user requested.
        images: Number of images to process.

    Returns:
        None if not even one worker of each stage finds a place.
    """
    gpus = _gpus_per_extractor(nodes, request)
    suitable = [node for node in nodes if request.extractor_placement.allows(node.labels)]
    free = sum(node.free.get("CPU", 0.0) for node in nodes)
    near = sum(node.free.get("CPU", 0.0) for node in suitable)
    largest = max((node.free.get("CPU", 0.0) for node in suitable), default=0.0)
    free, near = (min(amount, request.cpus or math.inf) for amount in (free, near))
    if free + _ROUNDING < EXTRACT_CPUS + DECODE_CPUS + WRITE_CPUS:
        return None
    wanted = request.extractors or (math.inf if gpus else _cpu_extractors(suitable, near, images))
    count = int(max(1, min(wanted, _places(suitable, request, gpus, at_most=wanted))))
    for extractors in _down_from(count):
        plan = _divided(request, images, extractors, gpus, free=free, near=near, largest=largest)
        for decoders in _down_from(plan.decoders) if plan.decoders else [0]:
            smaller = dataclasses.replace(plan, decoders=decoders)
            if smaller.fits(nodes):
                return smaller
    return None


def _down_from(count: int) -> Iterator[int]:
    """Yield counts from this one down to 1, in steps of an eighth."""
    while count:
        yield count
        count -= max(1, count // 8)


def minimum(request: Request, nodes: Sequence[Node]) -> list[Worker]:
    """Return what the smallest flow takes: an extractor, a decoder and a writer."""
    gpus = _gpus_per_extractor(nodes, request)
    extractor, decoder = request.extractor_placement, request.decoder_placement
    cores = {"CPU": EXTRACT_CPUS, **({"GPU": gpus} if gpus else {})}
    return [
        Worker({**cores, **extractor.resources}, extractor.labels),
        Worker({"CPU": DECODE_CPUS, **decoder.resources}, decoder.labels),
        Worker({"CPU": WRITE_CPUS}, {}),
    ]


def _divided(
    request: Request,
    images: int,
    extractors: int,
    gpus: float,
    *,
    free: float,
    near: float,
    largest: float,
) -> Plan:
    """Divide cores: `free` on all nodes, `near` on those for extractors, `largest` on one of these."""
    # Never all cores: without a share for decoding and writing, the run would block.
    extractor_cpus = min(1.0, EXTRACT_CPUS * near / extractors, largest)
    if request.extractor_cpus is not None:
        extractor_cpus = request.extractor_cpus
    writers = -(-extractors // EXTRACTORS_PER_WRITER)
    spare = free - extractors * extractor_cpus - writers * WRITE_CPUS
    decoders = max(1, int(spare / DECODE_CPUS + _ROUNDING)) if images >= MANY_IMAGES else 0
    return Plan(
        request=request,
        extractors=extractors,
        extractor_cpus=round(extractor_cpus, 4),
        extractor_gpus=gpus,
        decoders=decoders,
        writers=writers,
        threads=0 if gpus else max(1, int(near) // extractors),
        # A small index still shows progress in eighths; a large one gets shards near SHARD_BYTES.
        shard_rows=min(
            request.commit_every, max(1, SHARD_BYTES // max(1, request.row_bytes)), max(32, images // 8)
        ),
    )


def _gpus_per_extractor(nodes: Sequence[Node], request: Request) -> float:
    """Return the share of a GPU for each extractor: 1 where the cluster has any."""
    if request.gpus_per_extractor is not None:
        return request.gpus_per_extractor
    return 1.0 if any(node.total.get("GPU") for node in nodes) else 0.0


def _cpu_extractors(nodes: Sequence[Node], cpus: float, images: int) -> int:
    """Return the number of single-threaded extractors, which are 1.5 times as fast as one with many threads.

    For few images, starting a second actor takes longer than it saves, and each needs 0.7 GB of memory: no
    more than `MAX_CPU_EXTRACTORS` on a node.
    """
    if images < MANY_IMAGES:
        return 1
    free = [node.free.get("CPU", 0.0) + _ROUNDING for node in nodes]
    places = sum(min(int(cores / EXTRACT_CPUS), MAX_CPU_EXTRACTORS) for cores in free)
    return max(1, min(places, int(cpus + _ROUNDING)))


def _places(nodes: Sequence[Node], request: Request, gpus: float, *, at_most: float) -> float:
    """Return how many extractors find GPUs and custom resources; cores are divided afterwards."""
    needs = {**({"GPU": gpus} if gpus else {}), **request.extractor_placement.resources}
    if not needs:
        return at_most
    return sum(
        min(int(node.free.get(name, 0.0) / amount + _ROUNDING) for name, amount in needs.items())
        for node in nodes
    )


def _size(worker: Worker) -> tuple[int, float, float]:
    """Order workers by how hard they are to place."""
    resources = worker.resources
    special = len(worker.labels) + sum(name not in ("CPU", "GPU") for name in resources)
    return special, resources.get("GPU", 0.0), resources["CPU"]


def _has_room(worker: Worker, free: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return Placement(labels=worker.labels).allows(labels) and all(
        free.get(name, 0.0) + _ROUNDING >= amount for name, amount in worker.resources.items()
    )

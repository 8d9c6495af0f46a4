"""Everything that can be set about the service, for flags and for a Serve config file alike."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.matching.precision import MatchingPrecision
from models.runtime.execution import Execution, Precision
from serving.matching_options import Matching
from storage.errors import PlacerayError
from storage.search.methods import SearchMethodSetting

__all__ = ["OPEN_STREET_MAP", "InvalidSettings", "Scale", "ServeSettings", "read_settings"]

OPEN_STREET_MAP = "https://tile.openstreetmap.org/{z}/{x}/{y}.png"


class InvalidSettings(PlacerayError, ValueError):
    """A setting of the service is unknown or out of bounds."""

    reason = "invalid_settings"


class Scale(BaseModel):
    """How many replicas a deployment has and what each takes.

    Attributes:
        min_replicas: Never fewer.
        max_replicas: Never more; more than `min_replicas` switches autoscaling on.
        num_cpus: Cores that Ray sets aside for each.
        num_gpus: GPUs that Ray sets aside for each; None: one where there are several, half of the only one.
        target_ongoing_requests: Autoscaling adds replicas above this many requests per replica.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1, le=1000)
    max_replicas: int = Field(default=1, ge=1, le=1000)
    num_cpus: float = Field(default=0.1, ge=0)
    num_gpus: float | None = Field(
        default=None, ge=0, description="share of a GPU per replica; default: 1, or half of a single GPU"
    )
    target_ongoing_requests: float = Field(default=8, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas is below min_replicas; raise it")
        return self


class ServeSettings(BaseModel):
    """One service.

    Attributes:
        store: The store's folder.
        model: Name or weights file; None takes the name on the store's card.
        precision: Of the model's arithmetic, see `models.runtime.execution`.
        compile: Compile the model before the first query, see `models.runtime.compiled`.
        model_name: Name on the store's card; filled in when the service is built.
        topology: `compact` runs every stage in the serving replica, `split` each in deployments of its own.
        shards: Parts of the index, each in a deployment of its own; topology `split`.
        method: How the nearest descriptors are found, see `storage.search.index_partition`.
        matching: `exact`, or `fast` for approximate counts of large maps, see `serving.reranking`.
        stop_early: Whether candidates are left out once one stands far above the others.
        rerank_budget_ms: Time of fetching and matching after which candidates are left out; None: no limit.
        memory_gib: Budget of one part's descriptors in memory; beyond it LanceDB's index on disk is used.
        refresh_s: How often newer commits are looked for.
        cache_mib: Bound of the feature cache of each re-ranking replica.
        max_batch: Most photos that go through the model at once.
        max_queue: Queries that may wait in each replica, before 503.
        max_in_flight: Queries that may be under way in each ingress replica, before 503.
        max_candidates: Largest `candidates` a client may ask for.
        max_top_k: Largest `top_k` a client may ask for.
        request_timeout_s: A query that takes longer gets 503.
        receive_timeout_s: A body that takes longer to come gets 408.
        max_body_mib: A larger body gets 413.
        threads: Threads of the model in each replica; 0 shares half of a machine's cores among them, because
            the other half decodes, searches, re-ranks and speaks HTTP (measured, benchmarks/README.md).
        tiles: URL template of street tiles for the page; empty for none.
        tiles_attribution: Shown on the map.
        log_file: Append the logs there instead of writing them to stderr.
        ingress, extractor, searcher, reranker: Replicas of each deployment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    store: str = Field(min_length=1, description="folder of the store")
    model: str | None = Field(default=None, description="name or weights file; default: the store's")
    model_name: str = ""
    precision: Precision = "auto"
    compile: bool = False
    topology: Literal["compact", "split"] = Field(
        default="compact", description="compact: one process; split: one deployment per stage"
    )
    shards: int = Field(default=1, ge=1, le=256, description="partitions of the index, with topology split")
    method: SearchMethodSetting = Field(default="auto", description="search method")
    matching: MatchingPrecision = "exact"
    stop_early: bool = False
    rerank_budget_ms: float | None = Field(default=None, ge=0, le=3_600_000)
    memory_gib: float = Field(default=4.0, gt=0, description="memory for descriptors per searcher")
    refresh_s: float = Field(default=2.0, ge=0.1, le=30, description="interval of checks for new commits")
    cache_mib: int = Field(default=256, ge=0, description="feature cache per re-ranker")
    max_batch: int = Field(default=8, ge=1, le=1024, description="photos per forward pass")
    max_queue: int = Field(default=32, ge=1, le=100_000, description="queued queries per replica")
    max_in_flight: int = Field(
        default=64, ge=1, le=100_000, description="concurrent queries per ingress replica"
    )
    max_candidates: int = Field(
        default=1000, ge=1, le=10_000, description="largest number of candidates a client may request"
    )
    max_top_k: int = Field(default=100, ge=1, le=10_000)
    request_timeout_s: float = Field(default=30.0, gt=0, le=3600, description="timeout of a query")
    receive_timeout_s: float = Field(default=5.0, gt=0, le=600, description="upload timeout")
    max_body_mib: float = Field(default=16.0, gt=0, le=64, description="largest request body")
    threads: int = Field(
        default=0, ge=0, description="threads of the model per process; default: half of the cores"
    )
    tiles: str = Field(
        default=OPEN_STREET_MAP,
        description="URL template of street tiles; '' for none; default: OpenStreetMap",
    )
    tiles_attribution: str = "© OpenStreetMap contributors"
    log_file: str = Field(default="", description="file for logs; '-': stderr; default: a new file")
    ingress: Scale = Scale()
    extractor: Scale = Scale()
    searcher: Scale = Scale()
    reranker: Scale = Scale()

    @property
    def execution(self) -> Execution:
        """How the model is run."""
        return Execution(precision=self.precision, compiled=self.compile)

    @property
    def matching_options(self) -> Matching:
        """How the candidates of a query are matched."""
        return Matching(precision=self.matching, stop_early=self.stop_early, budget_ms=self.rerank_budget_ms)

    @property
    def max_body_bytes(self) -> int:
        """The body cap in bytes."""
        return int(self.max_body_mib * (1 << 20))

    @model_validator(mode="after")
    def _fits(self) -> ServeSettings:
        if self.shards > 1 and self.topology == "compact":
            raise ValueError("shards need topology split: add it, or drop shards")
        if self.tiles and not self.tiles.startswith(("https://", "http://")):
            raise ValueError("tiles is not an http or https URL: give one, or leave it empty")
        return self


def read_settings(values: dict[str, Any]) -> ServeSettings:
    """Check settings as they come from flags or a config file.

    Raises:
        InvalidSettings: names every setting that is unknown or out of bounds.
    """
    try:
        return ServeSettings.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise InvalidSettings("; ".join(problems) + ": see placeray serve --help") from None

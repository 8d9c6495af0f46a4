"""Settings of the service, for the command line and for Serve config files."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.matching.precision import MatchingPrecision
from models.photo_limits import MAX_MEGAPIXELS, MEGAPIXELS_HELP, SERVICE_MEGAPIXELS_BOUND, pixels_of
from models.runtime.execution import Execution, Precision
from serving.matching_options import Matching, ScoreKind
from storage.errors import PlacerayError
from storage.objects.address import BucketAddress, is_bucket_uri, require_no_secret_names
from storage.search.methods import SearchMethodSetting

__all__ = ["OPEN_STREET_MAP", "InvalidSettings", "Scale", "ServeSettings", "read_settings"]

_BUCKET_REFRESH_S = 2.0  # each check is a request
OPEN_STREET_MAP = "https://tile.openstreetmap.org/{z}/{x}/{y}.png"


class InvalidSettings(PlacerayError, ValueError):
    """A setting of the service is unknown or out of bounds."""

    reason = "invalid_settings"


def _help_of(settings: type, name: str) -> str:
    """Return the description of a dataclass field that this model takes over."""
    return str(next(field.metadata["help"] for field in fields(settings) if field.name == name))


def _is_in_bucket(store: object) -> bool:
    return isinstance(store, str) and "://" in store and not store.startswith("file:")


class Scale(BaseModel):
    """How many replicas a deployment has and what each takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1, le=1000, description="minimum number of replicas")
    max_replicas: int = Field(
        default=1, ge=1, le=1000, description="maximum number of replicas; above the minimum: autoscaling"
    )
    num_cpus: float = Field(default=0.1, ge=0, description="cores that Ray reserves per replica")
    num_gpus: float | None = Field(
        default=None, ge=0, description="share of a GPU per replica; default: 1, or half of a single GPU"
    )
    target_ongoing_requests: float = Field(
        default=8, gt=0, description="requests per replica above which autoscaling adds replicas"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas is below min_replicas; raise it")
        return self


class ServeSettings(BaseModel):
    """Settings of one service; each field describes itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    store: str = Field(min_length=1, description="folder of the store")
    at: str | None = Field(
        default=None,
        description="tag of the version to serve; the tag is followed; default: the newest version",
    )
    model: str | None = Field(
        default=None, description="name, weights file, timm:NAME or model file (.toml); default: the store's"
    )
    model_name: str = Field(default="", description="name on the store's card; set when the service starts")
    local_features: bool = Field(
        default=True, description="whether the store holds local features; set when the service starts"
    )
    precision: Precision = Field(default="auto", description=_help_of(Execution, "precision"))
    compile: bool = Field(default=False, description=_help_of(Execution, "compiled"))
    topology: Literal["compact", "split"] = Field(
        default="compact", description="compact: one process; split: one deployment per stage"
    )
    shards: int = Field(
        default=1, ge=1, le=256, description="partitions of the index, with topology split, one per searcher"
    )
    method: SearchMethodSetting = Field(
        default="auto", description="search method; auto: by the number of rows"
    )
    score: ScoreKind | None = Field(default=None, description=_help_of(Matching, "score"))
    matching: MatchingPrecision = Field(default="exact", description=_help_of(Matching, "precision"))
    stop_early: bool = Field(default=False, description=_help_of(Matching, "stop_early"))
    rerank_budget_ms: float | None = Field(
        default=None, ge=0, le=3_600_000, description=_help_of(Matching, "budget_ms")
    )
    memory_gib: float = Field(
        default=4.0,
        gt=0,
        description="memory for descriptors per searcher; beyond it an index on disk is searched",
    )
    refresh_s: float = Field(
        default=0.5,
        ge=0.1,
        le=30,
        description="interval of checks for new commits; default: 0.5 in a folder, 2 in a bucket",
    )
    cache_mib: int = Field(default=256, ge=0, description="feature cache per re-ranker")
    max_batch: int = Field(default=8, ge=1, le=1024, description="photos per forward pass")
    max_queue: int = Field(
        default=32, ge=1, le=100_000, description="queued queries per replica; 503 beyond it"
    )
    max_in_flight: int = Field(
        default=64, ge=1, le=100_000, description="concurrent queries per ingress replica; 503 beyond it"
    )
    candidates: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="hits that are re-ranked unless a request says otherwise; default: 50 where the store "
        "has learned its descriptors, else 100",
    )
    max_candidates: int = Field(
        default=1000, ge=1, le=10_000, description="largest number of candidates a client may request"
    )
    max_top_k: int = Field(
        default=100, ge=1, le=10_000, description="largest number of places a client may request"
    )
    request_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="timeout of a query; 503 beyond it"
    )
    receive_timeout_s: float = Field(
        default=5.0, gt=0, le=600, description="timeout of an upload; 408 beyond it"
    )
    max_body_mib: float = Field(default=16.0, gt=0, le=64, description="largest request body; 413 beyond it")
    max_megapixels: float = Field(
        default=MAX_MEGAPIXELS,
        gt=0,
        le=SERVICE_MEGAPIXELS_BOUND,
        description=f"{MEGAPIXELS_HELP}, in each of two threads per extractor; 413 beyond it",
    )
    # Not all cores: the others decode, search, re-rank and speak HTTP (measured, benchmarks/README.md).
    threads: int = Field(
        default=0, ge=0, description="threads of the model per process; default: half of the cores"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="host names, such as a reverse proxy's, that a service without tokens answers to beside "
        "localhost and loopback addresses; 421 for others",
    )
    tiles: str = Field(
        default=OPEN_STREET_MAP,
        description="URL template of street tiles; '' for none; default: OpenStreetMap",
    )
    tiles_attribution: str = Field(
        default="© OpenStreetMap contributors", description="credit for the tiles, shown on the map"
    )
    log_file: str = Field(
        default="",
        description="file to append logs to; '-': stderr; default: a new file; in config files: stderr",
    )
    ingress: Scale = Field(default=Scale(), description="replicas of the ingress")
    extractor: Scale = Field(default=Scale(), description="replicas of the extractor, with topology split")
    searcher: Scale = Field(default=Scale(), description="replicas of each searcher, with topology split")
    reranker: Scale = Field(default=Scale(), description="replicas of the re-ranker, with topology split")

    @property
    def execution(self) -> Execution:
        """How the model is run."""
        return Execution(precision=self.precision, compiled=self.compile)

    @property
    def matching_options(self) -> Matching:
        """How the candidates of a query are matched."""
        return Matching(
            precision=self.matching,
            stop_early=self.stop_early,
            budget_ms=self.rerank_budget_ms,
            score=self.score,
        )

    @property
    def max_pixels(self) -> int:
        """The largest photo in pixels."""
        return pixels_of(self.max_megapixels)

    @property
    def max_body_bytes(self) -> int:
        """The largest request body in bytes."""
        return int(self.max_body_mib * (1 << 20))

    @model_validator(mode="before")
    @classmethod
    def _checks_buckets_less_often(cls, values: Any) -> Any:
        if isinstance(values, dict) and "refresh_s" not in values and _is_in_bucket(values.get("store")):
            return {**values, "refresh_s": _BUCKET_REFRESH_S}
        return values

    @model_validator(mode="after")
    def _fits(self) -> ServeSettings:
        if self.shards > 1 and self.topology == "compact":
            raise ValueError("shards need topology split: add it, or drop shards")
        if self.tiles and not self.tiles.startswith(("https://", "http://")):
            raise ValueError("tiles is not an http or https URL: give one, or leave it empty")
        for name in self.allowed_hosts:
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name):
                raise ValueError(
                    "allowed_hosts has something else than a host name: leave out scheme and port"
                )
        return self


def read_settings(values: dict[str, Any]) -> ServeSettings:
    """Validate settings from flags or a config file.

    Raises:
        InvalidSettings: lists every setting that is unknown or out of bounds.
        SecretInOptions: one of them, or an option in the address of the store, is a secret; a config file and
            what is made of it can be read by all who see the cluster's dashboard.
        UnknownStorageOption, StoreError: the address of the store cannot be used.
    """
    for name in values.keys() - ServeSettings.model_fields.keys():
        inside = values[name] if isinstance(values[name], dict) else ()
        require_no_secret_names(map(str, [name, *inside]))
    if is_bucket_uri(store := str(values.get("store"))):
        BucketAddress.parse(store)
    try:
        return ServeSettings.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise InvalidSettings("; ".join(problems) + ": see placeray serve --help") from None

"""Evaluate a data set: check its queries, index what the store lacks, answer, score, report."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.photo_limits import MAX_MEGAPIXELS, pixels_of
from models.runtime.execution import AS_USUAL, Execution
from models.store_fit import require_fit
from pipelines.defaults import SPLIT, THRESHOLD_M
from pipelines.evaluation.database import complete_store
from pipelines.evaluation.database_photos import DatabasePhotos
from pipelines.evaluation.deployed import deployed_costs
from pipelines.evaluation.descriptors import describe_photos, descriptor_matrix, stored_descriptors
from pipelines.evaluation.engines import AnsweringEngine, RememberingEngine
from pipelines.evaluation.field_files import write_descriptors
from pipelines.evaluation.predictions import write_predictions
from pipelines.evaluation.protocols import BadProtocol, Protocol, protocol_of
from pipelines.evaluation.queries import Queries, read_queries
from pipelines.evaluation.query_table import query_table, write_query_table
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.report import write_report
from pipelines.evaluation.result import Evaluation
from pipelines.evaluation.scoring import Scoring, scoring_of
from pipelines.evaluation.service_engine import ServiceEngine
from pipelines.sources import SourceError, list_source, open_dataset
from serving.client import PlaceClient
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY, Matching
from serving.query import Rerank
from storage.card import FeatureEncoding
from storage.durable import replace_file
from storage.errors import StoreNotFound
from storage.store import Store

__all__ = ["DatasetEvaluation", "evaluate"]


@dataclass(frozen=True, repr=False)
class DatasetEvaluation(Evaluation):
    """An evaluation, and what was done about its database.

    Attributes:
        database_indexed: Images that were indexed for it, because the store lacked them.
        database_rejected: Database images that could not be used and are not in the store.
        database_elsewhere: Stored images that are not in the database; they were searched with it.
        answers_remembered: Queries whose answers are those of an earlier run with the same settings.
        newest_version: Version of the store after the run.
        deployed: With `url`: recall of more exact engines and what each part of the service costs, see
            `pipelines.evaluation.deployed`.
    """

    database_indexed: int = 0
    database_rejected: int | None = None
    database_elsewhere: int = 0
    answers_remembered: int = 0
    newest_version: int | None = None
    deployed: Mapping[str, Any] | None = None


def evaluate(
    dataset: str | Path | None = None,
    *,
    store_uri: str | None = None,
    database: str | Path | None = None,
    queries: str | Path | None = None,
    root: str | Path | None = None,
    model: str | None = None,
    image_size: tuple[int, int] | None = None,
    features: FeatureEncoding | None = None,
    aggregation: str | None = None,
    split: str = SPLIT,
    candidates: int | None = None,
    rerank: Rerank = True,
    matching: Matching = ALL_EXACTLY,
    execution: Execution = AS_USUAL,
    threshold_m: float = THRESHOLD_M,
    protocol: str | None = None,
    keys: str | Path | None = None,
    follow_links: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    url: str | None = None,
    token: str | None = None,
    remember: bool = True,
    report: str | Path | None = None,
    predictions: str | Path | None = None,
    descriptors: bool = False,
    progress: Callable[[int, int, int], None] = lambda done, rejected, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> DatasetEvaluation:
    """Evaluate a data set on its own index.

    The queries are checked first. Database images that the store lacks are indexed then, so that no part of a
    database is ever scored; a store that lacks nothing is only read. The same call continues what was
    interrupted.

    Args:
        dataset: Data set in a known layout, see `pipelines.sources.open_dataset`; may be left out where
            database and queries are given.
        store_uri: Store of the database; created if missing. None uses a temporary one.
        database: Folder or listing of the database, where the layout does not tell it.
        queries: Folder or listing of the queries, where the layout does not tell it.
        root: Folder that the paths of listings are relative to; default: that of each listing.
        model: Name or weights file; by default the store's, or the default model for a new store.
        image_size: Height and width of the network's input; default: the store's, or the model's own.
        features: Encoding of local features, see `storage.features.encodings`; default: the store's, or that
            of `default_encoding`.
        aggregation: See `pipelines.indexing.job.index`; queries are never learned from.
        split: One of train, val and test.
        candidates: How many hits are re-ranked; 0: none; default: as of `QueryEngine.answer`.
        rerank: False ranks by global descriptor only.
        matching: Options of matching.
        execution: How the model is run, while indexing too.
        threshold_m: Distance up to which an answer is right, in metres, where no protocol says it.
        protocol: Name of a protocol, `metres:25`, `frames:10`, or the path of a TOML file, see
            `pipelines.evaluation.protocols`.
        keys: File with the keys of the queries to score.
        follow_links: Whether symbolic links may lead out of the folders of the data set.
        max_megapixels: Largest photo, of queries and database.
        url: A running service of the store, which answers instead; its parts are compared with exact search.
            It is asked first, before anything is read or indexed.
        token: Of the service.
        remember: Whether answers are kept on this machine, and used again by a run with the same settings;
            those of a service until the run is through.
        report: Folder for index.html and evaluation.json.
        predictions: Folder for the answers to each query, see `pipelines.evaluation.predictions`.
        descriptors: Whether the descriptors of both sides are written there too.
        progress: Called with (done, rejected, total) while queries are checked, images indexed and queries
            answered.
        say: Called with a sentence on what cannot be used and on what is indexed.

    Returns:
        The results, as attributes and as a mapping (`result["recall"]["global"]["1"]`), and every query's
        outcome.

    Raises:
        CardMismatch: a flag does not fit the store; nothing is indexed or scored.
        SourceError: there is no such data set, no query can be scored, or the store holds other images.
        StoreError, WeightsUnavailable, CannotCompile: as `index` and `measure_recall`.
        ServiceUnavailable, ServiceRefused, BadAnswer: see `PlaceClient`.
    """
    with contextlib.ExitStack() as stack:
        uri = store_uri or stack.enter_context(tempfile.TemporaryDirectory(prefix="placeray-"))
        with contextlib.suppress(StoreNotFound):
            given = {
                "image_size": image_size,
                "features": features,
                "aggregation": aggregation,
                "model": model,
            }
            require_fit(uri, Store.open(uri).card, given)
        client = None if url is None else PlaceClient(url, token=token)
        if client is not None:
            client.info()  # a wrong URL or token ends the run before anything is read or indexed
        rule = _protocol(protocol, threshold_m)
        split = rule.split if rule.split and split == SPLIT else split
        layout = open_dataset(dataset, split=split, database=database, queries=queries)
        if root is not None and layout.database.is_dir() and layout.queries.is_dir():
            raise SourceError("--root is for listings: leave it out where both sides are folders")
        scoring = Scoring(rule)
        if protocol is not None or keys is not None:
            sides = (
                list_source(side, root=_root_of(side, root), follow_links=follow_links)
                for side in (layout.database, layout.queries)
            )
            scoring = scoring_of(rule, layout, *sides, keys=None if keys is None else Path(keys).expanduser())
        photos = read_queries(
            layout.queries,
            root=_root_of(layout.queries, root),
            only=scoring.only,
            by_position=scoring.by_position,
            follow_links=follow_links,
            max_pixels=pixels_of(max_megapixels),
            progress=progress,
        )
        _say_what_is_left_out(photos, say)
        again = "; an interrupted run goes on with the same command" if store_uri else ""
        how: dict[str, Any] = {"model": model, "execution": execution, "max_megapixels": max_megapixels}
        done = complete_store(
            layout.database,
            uri,
            say=lambda sentence: say(sentence + again),
            root=_root_of(layout.database, root),
            by_position=scoring.by_position,
            follow_links=follow_links,
            image_size=image_size,
            features=features,
            aggregation=aggregation,
            progress=progress,
            **how,
        )
        engine = QueryEngine.open(uri, matching=matching, **how)

        def measure(chosen: AnsweringEngine) -> Evaluation:
            return measure_recall(
                layout,
                chosen,
                queries=photos,
                candidates=candidates,
                rerank=rerank,
                scoring=scoring,
                progress=lambda answered, total: progress(answered, photos.rejected, total),
            )

        service = None if client is None else ServiceEngine(engine, client)
        kept = _Kept(photos, remember=remember and store_uri is not None)
        answering = kept.engine(engine if service is None else service)
        evaluation = measure(answering)
        changes: dict[str, Any] = {f"database_{name}": count for name, count in vars(done).items()}
        changes["answers_remembered"] = getattr(answering, "remembered", 0)
        changes["newest_version"] = Store.open(uri).version
        if service is not None:
            listed = DatabasePhotos(
                lambda: list_source(
                    layout.database, root=_root_of(layout.database, root), follow_links=follow_links
                )
            )
            changes["deployed"] = deployed_costs(
                engine, evaluation, service.search_method, lambda one: measure(kept.engine(one)), listed
            )
        result = DatasetEvaluation(**vars(evaluation), **changes)
        if predictions is not None:
            _write_predictions(Path(predictions), result, engine, descriptors=descriptors)
        if report is not None:
            _write_report(Path(report), result, engine)
        if service is not None and isinstance(answering, RememberingEngine):
            answering.forget()
    return result


class _Kept:
    """Makes engines remember their answers to the queries of a run, where that may be."""

    def __init__(self, photos: Queries, *, remember: bool) -> None:
        self._remember = remember
        self._digests = {row["uri"]: row["sha256"] for row in photos.rows}

    def engine(self, engine: AnsweringEngine) -> AnsweringEngine:
        """Return the engine, or one that remembers its answers."""
        # A budget's answers depend on the moment, and a service that does not say its settings may have one.
        unknown = isinstance(engine, ServiceEngine) and not engine.tells_matching
        if not self._remember or unknown or engine.matching.budget_ms is not None:
            return engine
        return RememberingEngine(engine, self._digests)


def _protocol(name: str | None, threshold_m: float) -> Protocol:
    """Return the protocol of a run.

    Raises:
        BadProtocol: there is none of this name, or it says another distance than `threshold_m`.
    """
    if name is None:
        return Protocol(f"metres:{threshold_m:g}", "metres", threshold_m)
    protocol = protocol_of(name)
    if threshold_m not in (THRESHOLD_M, protocol.threshold_m):
        raise BadProtocol(
            f"--threshold-m {threshold_m:g} is not that of {protocol.name}: give one of the two"
        )
    return protocol


def _say_what_is_left_out(photos: Queries, say: Callable[[str], None]) -> None:
    for count, what in ((photos.rejected, "cannot be used"), (photos.without_position, "have no position")):
        if count:
            say(f"{count} of {photos.listed} queries {what}")


def _root_of(source: Path, root: str | Path | None) -> str | Path | None:
    """Return the root for a side of the data set: folders have none."""
    return None if source.is_dir() else root


def _write_predictions(folder: Path, result: Evaluation, engine: QueryEngine, *, descriptors: bool) -> None:
    known = engine.store.metadata()
    uris = dict(zip(known["image_id"].to_pylist(), known["uri"].to_pylist(), strict=True))
    write_predictions(folder, result, uris)
    if descriptors:
        stored = stored_descriptors(engine.store).sort_by("uri")
        write_descriptors(
            folder,
            queries=describe_photos(engine, [outcome.uri for outcome in result.outcomes]),
            database=descriptor_matrix(stored),
            database_paths=stored["uri"].to_pylist(),
        )


def _write_report(folder: Path, result: Evaluation, engine: QueryEngine) -> None:
    write_report(folder / "index.html", result, engine)
    values: dict[str, Any] = dict(result)
    write_query_table(folder, query_table(result.outcomes, values), as_csv=False)
    replace_file(folder / "evaluation.json", (json.dumps(values, indent=2) + "\n").encode())

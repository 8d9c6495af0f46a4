"""The search methods that bench_search compares: how each is built, and which settings are tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.search.approximate import ApproximateIndex

__all__ = ["METHODS", "Method", "Search"]

Search = Callable[[np.ndarray, int], np.ndarray]

_BLOCK = 32_768
_SAMPLES_PER_LIST = 64
# Lists, ef, and how many times k rows are refined; None: every list, as the product reads them.
_LANCE_SETTINGS = ((64, 400, 2), (256, 400, 4), (None, 400, 4), (None, 1000, 10))
_WHOLE = ("Flat", "SQfp16")


@dataclass(frozen=True)
class Method:
    """One way to search.

    Attributes:
        build: Takes (N, D) float16 rows and a place that is empty, and returns the index.
        settings: Yields the name of each setting and its search, which returns (B, k) int64 row numbers.
        place: Makes the place from an empty folder, for as long as the index is used.
    """

    build: Callable[[np.ndarray, Any], Any]
    settings: Callable[[Any], Iterator[tuple[str, Search]]]
    place: Callable[[Path], AbstractContextManager[Any]] = nullcontext


def lists_for(rows: int) -> int:
    """Return a power of two near two square roots of the rows: 512 lists for 100,000, 2,048 for a million."""
    return int(2 ** round(math.log2(2 * math.sqrt(rows))))


def _faiss_index(description: str, stored: np.ndarray) -> Any:
    """Build what FAISS's factory calls `description`; {lists}: inverted lists, {pairs}: D / 2."""
    import faiss

    rows, width = stored.shape
    lists = lists_for(rows)
    # Of unit vectors the nearest are those of highest inner product; codes of differences need distances.
    metric = faiss.METRIC_INNER_PRODUCT if description in _WHOLE else faiss.METRIC_L2
    index = faiss.index_factory(width, description.format(lists=lists, pairs=width // 2), metric)
    base = faiss.downcast_index(index.base_index) if isinstance(index, faiss.IndexRefine) else index
    if hasattr(base, "hnsw"):
        base.hnsw.efConstruction = 100
    if hasattr(base, "cp"):
        base.cp.max_points_per_centroid = _SAMPLES_PER_LIST
    if not index.is_trained:
        chosen = np.random.default_rng(0).permutation(rows)[: _SAMPLES_PER_LIST * lists]
        index.train(stored[np.sort(chosen)].astype(np.float32))
    for start in range(0, rows, _BLOCK):
        index.add(stored[start : start + _BLOCK].astype(np.float32))
    return index


def _searching(index: Any, parameters: Any) -> Search:
    return lambda queries, k: index.search(queries, k, params=parameters)[1]


def _refined(index: Any, factor: float, parameters: Any) -> Any:
    import faiss

    if not isinstance(index, faiss.IndexRefine):
        return parameters
    return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=parameters)


def _flat(description: str) -> Method:
    return Method(
        lambda stored, _: _faiss_index(description, stored),
        lambda index: iter([("every row", _searching(index, None))]),
    )


def _hnsw(description: str) -> Method:
    def settings(index: Any) -> Iterator[tuple[str, Search]]:
        import faiss

        for ef in (128, 256, 512, 1024):
            parameters = faiss.SearchParametersHNSW(efSearch=ef)
            yield f"ef {ef}", _searching(index, _refined(index, 2, parameters))

    return Method(lambda stored, _: _faiss_index(description, stored), settings)


def _ivf(description: str, factors: tuple[int, ...] = (1,)) -> Method:
    def settings(index: Any) -> Iterator[tuple[str, Search]]:
        import faiss

        base = faiss.downcast_index(index.base_index) if isinstance(index, faiss.IndexRefine) else index
        base.parallel_mode = 1  # one query's lists are shared out to the cores
        for factor in factors:
            for probes in (32, 64, 128, 256, 512):
                parameters = faiss.SearchParametersIVF(nprobe=probes)
                name = f"{probes} lists" + (f", {factor}k refined" if len(factors) > 1 else "")
                yield name, _searching(index, _refined(index, factor, parameters))

    return Method(lambda stored, _: _faiss_index(description, stored), settings)


@contextmanager
def _bucket(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve a folder as a bucket by SeaweedFS on this machine; yield what `lancedb.connect` takes."""
    from tests.support.object_servers import KEY_ID, SECRET, seaweed_server

    with seaweed_server(folder) as url:
        options = {"endpoint": url, "allow_http": "true", "region": "us-east-1"}
        yield (
            "s3://placeray/rows",
            options | {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET},
        )


def _lance(
    kind: str, place: Callable[[Path], AbstractContextManager[Any]] = nullcontext, **options: int
) -> Method:
    def build(stored: np.ndarray, place: Path | tuple[str, dict[str, str]]) -> Any:
        import lancedb
        import pyarrow as pa
        from lancedb import index as kinds

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, len(stored), _BLOCK):
                block = np.ascontiguousarray(stored[start : start + _BLOCK])
                column = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), stored.shape[1])
                numbers = pa.array(np.arange(start, start + len(block)))
                yield pa.RecordBatch.from_arrays([numbers, column], schema=schema)

        vector = pa.field("descriptor", pa.list_(pa.float16(), stored.shape[1]))
        schema = pa.schema([pa.field("number", pa.int64()), vector])
        address, storage = place if isinstance(place, tuple) else (str(place), None)
        table = lancedb.connect(address, storage_options=storage).create_table(
            "rows", pa.RecordBatchReader.from_batches(schema, batches()), schema=schema
        )
        config = getattr(kinds, kind)(distance_type="cosine", **options)
        table.create_index("descriptor", config=config)
        return table

    def settings(table: Any) -> Iterator[tuple[str, Search]]:
        from storage.table.lance_table import EVERY_LIST

        for probes, ef, refine in _LANCE_SETTINGS:

            def search_table(
                queries: np.ndarray, k: int, probes: int | None = probes, ef: int = ef, refine: int = refine
            ) -> np.ndarray:
                rows = np.full((len(queries), k), -1)
                for at, query in enumerate(queries):
                    search = table.search(query, vector_column_name="descriptor").distance_type("cosine")
                    search = search.nprobes(probes or EVERY_LIST).refine_factor(refine).limit(k)
                    if "Hnsw" in kind:
                        search = search.ef(ef)
                    numbers = search.select(["number", "_distance"]).to_arrow()["number"].to_numpy()
                    rows[at, : len(numbers)] = numbers
                return rows

            lists = f"{probes} lists" if probes else "every list"
            beam = f", ef {ef}" if "Hnsw" in kind else ""
            yield f"{lists}{beam}, {refine}k refined", search_table

    return Method(build, settings, place)


def _own_index() -> Method:
    def settings(index: ApproximateIndex) -> Iterator[tuple[str, Search]]:
        name = f"{index.probes} of {index.lists} lists, {index.factor}k refined"
        yield f"{name}, {index.components} components, measured itself {index.recall:.4f}", index.search

    return Method(lambda stored, _: ApproximateIndex(stored), settings)


METHODS: dict[str, Method] = {
    "placeray's own (ivf)": _own_index(),
    "exact float32": _flat("Flat"),
    "exact float16": _flat("SQfp16"),
    "int8 + refine": Method(
        lambda stored, _: _faiss_index("SQ8,Refine(SQfp16)", stored),
        lambda index: iter([("every row, 2k refined", _searching(index, _refined(index, 2, None)))]),
    ),
    "HNSW float32": _hnsw("HNSW32,Flat"),
    "HNSW int8 + refine": _hnsw("HNSW32_SQ8,Refine(SQfp16)"),
    "IVF float32": _ivf("IVF{lists},Flat"),
    "IVF int8 + refine": _ivf("IVF{lists},SQ8,Refine(SQfp16)", (2,)),
    "IVF PQ 4-bit + refine": _ivf("IVF{lists},PQ{pairs}x4fs,Refine(SQfp16)", (4, 10)),
    "IVF RaBitQ + refine": _ivf("IVF{lists},RaBitQfs,Refine(SQfp16)", (4, 10)),
    "LanceDB IVF_HNSW_SQ": _lance("HnswSq"),
    "LanceDB IVF_PQ": _lance("IvfPq"),
    "LanceDB IVF_RQ": _lance("IvfRq"),
    "LanceDB IVF_RQ, 2 bits": _lance("IvfRq", num_bits=2),
    "LanceDB in a bucket": _lance("IvfRq", _bucket, num_bits=2),
}

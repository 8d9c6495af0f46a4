"""One row per query, as a table to read, to compute with, and to compare with another evaluation.

Columns: `query` (path), `sha256` of the photo, `rejected`, `lat`, `lon`, `utm_e`, `utm_n`, `utm_zone`,
`place` (queries of one place have the same number), `positives` (right images in the database), and for
each stage `first_hit_...` (rank of the first right answer, from 1; missing: none), `error_m_...` (metres to
the first answer); of the first answer in the final order `best_id`, `best_uri`, `best_sha256`, `similarity`,
`mutual_matches` and `score`; what is known of the photo (`condition`, `light`, `season`, `weather`, `view`,
`city`); and milliseconds per stage (`ms_...`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.evaluation.facets import KINDS
from pipelines.evaluation.outcome import QueryOutcome
from pipelines.sources import SourceError
from storage.durable import replace_file
from storage.position import POSITION_COLUMNS
from storage.text import spreadsheet_safe

__all__ = ["QUERY_TABLE", "query_table", "read_query_table", "write_query_table"]

QUERY_TABLE = "queries.parquet"
_SUMMARY = b"placeray.evaluation"
_STAGES = ("global", "reranked")
_TIMES = ("decode", "extract", "search", "fetch", "rerank", "total")
_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("sha256", pa.string()),
        ("rejected", pa.string()),
        *((name, pa.string() if name == "utm_zone" else pa.float64()) for name in POSITION_COLUMNS),
        ("place", pa.int64()),
        ("positives", pa.int64()),
        *((f"first_hit_{stage}", pa.int64()) for stage in _STAGES),
        *((f"error_m_{stage}", pa.float64()) for stage in _STAGES),
        ("best_id", pa.string()),
        ("best_uri", pa.string()),
        ("best_sha256", pa.string()),
        ("similarity", pa.float64()),
        ("mutual_matches", pa.int64()),
        ("score", pa.float64()),
        *((kind, pa.string()) for kind in KINDS),
        *((f"ms_{stage}", pa.float64()) for stage in _TIMES),
    ]
)
_MAX_SUMMARY_BYTES = 16 << 20


def query_table(outcomes: Sequence[QueryOutcome], figures: Mapping[str, Any]) -> pa.Table:
    """Return a row for each query.

    Args:
        outcomes: Of an evaluation.
        figures: The evaluation as a mapping; kept in the metadata, see `read_query_table`.
    """
    table = pa.Table.from_pylist([_row(outcome) for outcome in outcomes], schema=_SCHEMA)
    return table.replace_schema_metadata({_SUMMARY: json.dumps(dict(figures), default=str).encode()})


def write_query_table(folder: Path, table: pa.Table, *, as_csv: bool = True) -> None:
    """Write queries.parquet and queries.csv, each whole or not at all.

    Args:
        folder: Destination; exists.
        table: As of `query_table`.
        as_csv: Whether queries.csv is written too.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the folder cannot be written.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    replace_file(folder / QUERY_TABLE, buffer.getvalue().to_pybytes())
    if as_csv:
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(table.column_names)
        for row in table.to_pylist():
            rows.writerow([spreadsheet_safe("" if cell is None else cell) for cell in row.values()])
        replace_file(folder / "queries.csv", text.getvalue().encode("utf-8", "replace"))


def read_query_table(path: str | Path) -> tuple[pa.Table, Mapping[str, Any]]:
    """Read the table of an evaluation and its figures.

    Args:
        path: queries.parquet, or the folder of `--predictions` or `--report` that holds it.

    Raises:
        SourceError: there is no such file, or it is not one that `evaluate` wrote.
    """
    file = Path(path).expanduser()
    file = file / QUERY_TABLE if file.is_dir() else file
    again = "write it with placeray evaluate --predictions DIR or --report DIR"
    if not file.is_file():
        raise SourceError(f"{file} does not exist: {again}")
    try:
        table = pq.read_table(file)
        summary = (table.schema.metadata or {})[_SUMMARY]
        if len(summary) > _MAX_SUMMARY_BYTES or table.schema.names != _SCHEMA.names:
            raise ValueError("columns or figures differ")
        values = json.loads(summary)
        table = table.cast(_SCHEMA)
        if not isinstance(values, dict) or not {"recall", "conditions", "dataset"} <= values.keys():
            raise ValueError("figures are missing")
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise SourceError(f"{file} is not the query table of an evaluation ({error}): {again}") from error
    return table, values


def _row(outcome: QueryOutcome) -> dict[str, Any]:
    best = outcome.matches[0] if outcome.matches else None
    return {
        "query": outcome.uri.encode("utf-8", "replace").decode(),
        "sha256": outcome.sha256,
        "rejected": outcome.rejected,
        **outcome.position.to_dict(),
        "place": outcome.cluster,
        "positives": outcome.positives,
        "first_hit_global": outcome.first_hit_global,
        "first_hit_reranked": outcome.first_hit_reranked,
        **{f"error_m_{stage}": outcome.error_m(stage) for stage in _STAGES},
        "best_id": best and best.record.image_id.encode("utf-8", "replace").decode(),
        "best_uri": best and best.record.uri.encode("utf-8", "replace").decode(),
        "best_sha256": best and (getattr(best.record, "sha256", None) or None),
        "similarity": best and best.similarity,
        "mutual_matches": best and best.mutual_matches,
        "score": best and best.score,
        **{kind: outcome.facets.get(kind) for kind in KINDS},
        **{f"ms_{stage}": outcome.timings_ms.get(stage) for stage in _TIMES},
    }

"""Files as the programs of the field write them, for scripts that read those.

- `preds/000.txt`: VPR-methods-evaluation's blocks `Query path:`, `Predictions paths:` (best first) and
  `Positives paths:`, one file per query in the order of the queries.
- `info.log`: its last line, `R@1: 98.8, R@5: 99.7, R@10: 99.9, R@20: 100.0`.
- `queries_descriptors.npy` and `database_descriptors.npy`: (N, D) float32, in the order of `queries.csv` and
  of the sorted paths of the database, see `database_paths.txt`.
- `msls_predictions.txt`: MSLS's `query_key prediction_key prediction_key ...`, one line per query.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.query_keys import key_of
from pipelines.evaluation.result import Evaluation, QueryOutcome
from storage.durable import explain_write_errors, replace_file

__all__ = ["write_descriptors", "write_field_files"]

_SAVED = 20  # predictions per query
_LOGGED = ("1", "5", "10", "20")


def write_field_files(folder: Path, evaluation: Evaluation, uris: Mapping[str, str]) -> None:
    """Write preds/, info.log and msls_predictions.txt.

    Args:
        folder: Destination; exists.
        evaluation: The evaluation.
        uris: Path of each stored image by its id.

    Raises:
        OutOfSpace: the disk is full.
        NotWritable: the folder cannot be written.
    """
    preds = folder / "preds"
    with explain_write_errors(preds, 0):
        preds.mkdir(exist_ok=True)
        for number, outcome in enumerate(evaluation.outcomes):
            text = _blocks(outcome, uris)
            (preds / f"{number:03d}.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    recall = list(evaluation.recall.values())[-1]
    line = ", ".join(f"R@{k}: {recall[k]:.1f}" for k in _LOGGED if k in recall)
    replace_file(folder / "info.log", f"{evaluation.dataset}; {evaluation.protocol}\n{line}\n".encode())
    lines = ["# query_key prediction_keys, best first", *map(_msls_line, evaluation.outcomes)]
    replace_file(
        folder / "msls_predictions.txt", ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
    )


def write_descriptors(
    folder: Path,
    *,
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
    database_paths: Sequence[str],
) -> None:
    """Write the descriptors of both sides and the paths of the database, each file whole or not at all.

    Args:
        folder: Destination; exists.
        queries: (Q, D), zeros where a photo could not be used.
        database: (N, D).
        database_paths: N paths.
    """
    for name, array in (("queries", queries), ("database", database)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        replace_file(folder / f"{name}_descriptors.npy", buffer.getvalue())
    text = "".join(f"{path}\n" for path in database_paths)
    replace_file(folder / "database_paths.txt", text.encode("utf-8", "surrogateescape"))


def _blocks(outcome: QueryOutcome, uris: Mapping[str, str]) -> str:
    predictions = [_one_line(match.record.uri) for match in outcome.matches[:_SAVED]]
    positives = [_one_line(uris.get(image_id, image_id)) for image_id in sorted(outcome.positive_ids)]
    blocks = (
        ("Query path:", [_one_line(outcome.uri)]),
        ("Predictions paths:", predictions),
        ("Positives paths:", positives),
    )
    return "\n".join("\n".join([head, *lines, ""]) for head, lines in blocks)


def _one_line(path: str) -> str:
    return path.replace("\n", " ").replace("\r", " ")


def _msls_line(outcome: QueryOutcome) -> str:
    keys = [key_of(outcome.uri), *(key_of(match.record.uri) for match in outcome.matches)]
    return " ".join("_".join(key.split()) for key in keys)

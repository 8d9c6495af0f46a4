"""Answers of an evaluation that is going on or was interrupted: the next run with the same settings goes on.

The answers lie in files of some answers each below a folder per key. The key is
the digest of everything that changes an answer: the store's card and version, the options of the run, the
model's arithmetic, and placeray's version. A photo is found by the digest of its file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from serving.answer import Match, QueryResult
from storage.calibration_file import CALIBRATION_FILE, OWN_PHOTOS_FILE
from storage.durable import replace_file
from storage.errors import NotWritable, OutOfSpace, StoreError
from storage.records import ImageRecord
from storage.store import Store
from storage.version import __version__

__all__ = ["AnswerCache", "cache_key", "forget_answers"]

_MAX_BYTES = 4 << 20  # of one answer
_BLOCK = 64  # answers per file
_KEPT = 8  # settings whose answers are kept in one folder


def cache_key(store: Store, settings: Mapping[str, Any]) -> str:
    """Return the digest of everything that changes an answer but the photo."""
    values = {
        "placeray": __version__,
        "card": store.card.sha256,
        "store_version": store.version,
        "rows": _rows_digest(store),
        "measured": [_measured(store, name) for name in (CALIBRATION_FILE, OWN_PHOTOS_FILE)],
        **settings,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _measured(store: Store, name: str) -> object:
    """Return what was measured about a store's places, which answers carry."""
    try:
        return store.measured(name)
    except (ValueError, StoreError):
        return None


def _rows_digest(store: Store) -> str:
    """Return a digest of which photos a store holds and where their features lie.

    A store that was made anew at the same place may have the same version and card.
    """
    rows = store.metadata().select(["image_id", "sha256", "shard", "row"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


class AnswerCache:
    """Answers by the digest of the photo, in files of some answers each.

    Reading takes what is whole and belongs to the store; anything else is answered again. Where the folder
    cannot be read or written the evaluation goes on without.

    Args:
        folder: Of all keys; created with the first block.
        key: See `cache_key`.
        store: Whose records the answers name.
    """

    def __init__(self, folder: Path, key: str, store: Store) -> None:
        self._top, self._folder = folder, folder / key
        self._store = store
        self._answers: dict[str, Mapping[str, Any]] = {}
        self._fresh: dict[str, Mapping[str, Any]] = {}
        self._writable = True
        with contextlib.suppress(OSError):  # a folder of another user
            for path in sorted(self._folder.glob("*.json")):
                self._answers |= _read(path)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, sha256: str | None) -> QueryResult | None:
        """Return the answer to a photo; None if there is none."""
        values = None if sha256 is None else self._answers.get(sha256)
        if values is None:
            return None
        try:
            return _result(values, self._store)
        except (KeyError, TypeError, ValueError):
            return None

    def put(self, sha256: str | None, answer: QueryResult) -> None:
        """Keep an answer of the store's version; it is on disk after some more, or after `flush`."""
        if sha256 is None or answer.degraded or not self._writable:
            return
        if answer.store_version != self._store.version:  # a service follows its store
            return
        self._fresh[sha256] = _values(answer)
        if len(self._fresh) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        if not self._fresh or not self._writable:
            return
        data = json.dumps(self._fresh).encode()
        name = hashlib.sha256(data).hexdigest()[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / f"{name}.json", data)
            self._drop_oldest()
        except (OSError, NotWritable, OutOfSpace):
            self._writable = False
        self._answers |= self._fresh
        self._fresh = {}

    def remove(self) -> None:
        """Remove all answers of the key."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._answers, self._fresh = {}, {}

    def _drop_oldest(self) -> None:
        """Remove the answers of the settings that were used longest ago."""
        os.utime(self._folder)
        others = sorted(
            (path for path in self._top.iterdir() if path.is_dir() and len(path.name) == 64),
            key=lambda path: path.stat().st_mtime,
        )
        for path in others[:-_KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def forget_answers(folder: Path, image_ids: Collection[str]) -> int:
    """Remove the answers that name one of these photos, of whatever store, with those beside them in a file.

    Args:
        folder: Of all keys.
        image_ids: Keys of photos.

    Returns:
        How many files were removed; their photos are answered again.

    Raises:
        NotWritable: a file cannot be read or removed.
    """
    removed, wanted = 0, {json.dumps(image_id).encode() for image_id in image_ids}
    for path in sorted(folder.glob("*/*.json")):
        try:
            data = path.read_bytes()
            if any(image_id in data for image_id in wanted):
                path.unlink()
                removed += 1
        except FileNotFoundError:  # another run dropped it
            continue
        except OSError as error:
            raise NotWritable(
                f"answers of former evaluations in {folder} may name photos that must go, and cannot be "
                f"removed ({error.strerror}): delete that folder"
            ) from error
    return removed


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= _MAX_BYTES * _BLOCK:
            values = json.loads(path.read_bytes())
            if isinstance(values, dict):
                return {key: value for key, value in values.items() if isinstance(value, dict)}
    return {}


def _values(answer: QueryResult) -> dict[str, Any]:
    return {
        "model": answer.model,
        "store_version": answer.store_version,
        "reranked": answer.reranked,
        "timings_ms": answer.timings_ms,
        "place": answer.place,
        "calibration": answer.calibration,
        "matches": [
            [m.record.image_id, m.similarity, m.mutual_matches, m.score, m.score_kind] for m in answer.matches
        ],
    }


def _result(values: Mapping[str, Any], store: Store) -> QueryResult | None:
    """Return an answer with the store's records; None where the store lacks one."""
    rows: Sequence[Any] = values["matches"]
    records: dict[str, ImageRecord] = {
        record.image_id: record for record in store.get([row[0] for row in rows])
    }
    if len(records) != len({row[0] for row in rows}):
        return None
    matches = tuple(
        Match(rank, records[row[0]], float(row[1]), row[2], row[3], row[4])
        for rank, row in enumerate(rows, start=1)
    )
    return QueryResult(
        values["model"],
        values["store_version"],
        False,
        matches,
        dict(values["timings_ms"]),
        values["reranked"],
        place=dict(values["place"]),
        calibration=values["calibration"],
    )

"""The keys of a protocol's queries: lists as the field publishes them, and MSLS's own subset tables."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.evaluation.protocols import BadProtocol, Protocol

__all__ = ["key_of", "keys_for", "read_keys", "with_keys"]

_MAX_BYTES = 256 << 20
_PANO_ID_FIELD = 7
_SUBSET_TABLE = "subtask_index.csv"
_CITY_TABLES = ("postprocessed.csv", "raw.csv")
_MSLS_NAMES = ("mapillary_sls", "msls_raw", "MSLS")


def key_of(uri: str) -> str:
    """Return the key of a query photo: the pano id of a standard file name, else the name without its end."""
    name = Path(uri).name
    fields = name.split("@")
    if len(fields) > _PANO_ID_FIELD and fields[_PANO_ID_FIELD]:
        return fields[_PANO_ID_FIELD]
    return Path(name).stem


def with_keys(listing: pa.Table, keys: frozenset[str]) -> pa.Table:
    """Return the rows of a listing of queries whose key is among those given."""
    return listing.filter(pa.array([key_of(uri or "") in keys for uri in listing["uri"].to_pylist()]))


def keys_for(protocol: Protocol, folder: Path, listed: int, given: Path | None) -> frozenset[str] | None:
    """Return the keys of the queries of a protocol; None where all queries of the folder are scored.

    Args:
        protocol: The protocol.
        folder: The folder of the queries, around which MSLS's own tables are looked for.
        listed: How many queries the folder has.
        given: File with the keys.

    Raises:
        BadProtocol: the keys are needed and are not there, or cannot be read.
    """
    path = given or protocol.keys
    if path is not None:
        return read_keys(path)
    if not protocol.subset or listed == protocol.queries:
        return None
    tables = list(_subset_tables(folder))
    if not tables:
        raise BadProtocol(
            f"{protocol.name} scores {protocol.queries} of the {listed:,} queries in {folder}, and nothing "
            "says which: give their keys with --keys FILE (one per line or word, or a .npy array), or keep "
            f"MSLS's own {_SUBSET_TABLE} in {_MSLS_NAMES[0]}/train_val/<city>/query beside the data set"
        )
    return frozenset(key for table in tables for key in _keys_of_subset(table))


def read_keys(path: Path) -> frozenset[str]:
    """Read keys from a text (words or lines, of keys or paths), a .npy array, or a `subtask_index.csv`.

    Raises:
        BadProtocol: the file cannot be read, or has no keys.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadProtocol(f"--keys {path} is larger than {_MAX_BYTES >> 20} MiB: give a list of keys")
        if path.name == _SUBSET_TABLE:
            return frozenset(_keys_of_subset(path))
        words: Sequence[str]
        if path.suffix.lower() == ".npy":
            array = np.load(path)
            words = [str(word) for word in array.ravel()] if array.dtype.kind in "US" else []
        else:
            words = path.read_text(encoding="utf-8-sig", errors="replace").replace(",", " ").split()
    except (OSError, ValueError) as error:
        raise BadProtocol(f"--keys {path} cannot be read ({error}): check the file") from error
    keys = frozenset(key_of(word) for word in words)
    if not keys:
        raise BadProtocol(f"--keys {path} has no keys: give one per line or word, or a .npy array of texts")
    return keys


def _subset_tables(folder: Path) -> Iterator[Path]:
    """Yield MSLS's tables of the validation cities, in or beside the data set."""
    around = [folder, *list(folder.parents)[:4]]
    for base in (*around, *(parent / name for parent in around for name in _MSLS_NAMES)):
        tables = [
            path
            for city in ("cph", "sf")
            for path in (
                base / "train_val" / city / "query" / _SUBSET_TABLE,
                base / city / "query" / _SUBSET_TABLE,
            )
            if path.is_file()
        ]
        if tables:
            yield from tables
            return


def _keys_of_subset(table: Path) -> list[str]:
    """Return the keys of the rows that are True in the column `all`, panoramas left out."""
    beside = next((table.with_name(name) for name in _CITY_TABLES if table.with_name(name).is_file()), None)
    if beside is None:
        raise BadProtocol(f"{table} says which rows, but not their keys: keep {_CITY_TABLES[0]} beside it")
    panoramas = _column(table.with_name("raw.csv"), "pano") if table.with_name("raw.csv").is_file() else []
    chosen, keys = _column(table, "all"), _column(beside, "key")
    if len(chosen) != len(keys):
        raise BadProtocol(f"{table} has {len(chosen)} rows and {beside.name} {len(keys)}: copy both again")
    panoramas = panoramas if len(panoramas) == len(keys) else [""] * len(keys)
    return [
        key
        for key, is_chosen, panorama in zip(keys, chosen, panoramas, strict=True)
        if is_chosen.lower() == "true" and panorama.lower() != "true"
    ]


def _column(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if name not in (rows.fieldnames or ()):
            raise BadProtocol(f"{path} has no column {name}: copy it again from MSLS")
        return [str(row[name]) for row in rows]

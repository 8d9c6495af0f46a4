"""Tags: names for versions of a store in a folder, which `compact` then keeps.

A tag is a file of LanceDB's beside the table. In a bucket none are made: that setting one cannot race with a
writer that was paused has not been shown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from storage.durable import explain_write_errors, flush
from storage.errors import CorruptStore, StoreError, repair_command
from storage.json_values import parse_object, whole_number
from storage.layout import TABLE_FOLDER
from storage.objects.files import Location, read_bounded

__all__ = [
    "TAGS_FOLDER",
    "NoSuchVersion",
    "check_tag",
    "read_tags",
    "remove_tag",
    "tagged_version",
    "write_tag",
]

TAGS_FOLDER = f"{TABLE_FOLDER}/_refs/tags"
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_TAG_BYTES, _MAX_VERSION = 1 << 16, 2**48 - 1


class NoSuchVersion(StoreError):
    """A version or tag that was asked for is not there, or cannot be had."""

    reason, exit_code = "no_such_version", 2


def check_tag(name: str) -> str:
    """Return the name of a tag.

    Raises:
        NoSuchVersion: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise NoSuchVersion(
            f"{name[:80]!r} cannot be the name of a tag: take up to 64 letters, digits, dots, dashes and "
            "underscores, not digits alone"
        )
    return name


def read_tags(folder: Location) -> dict[str, int]:
    """Return the version of each tag, by its name; what is not a tag of placeray's is left out.

    Raises:
        CorruptStore: a tag cannot be read.
    """
    if not isinstance(folder, Path) or not (folder / TAGS_FOLDER).is_dir():
        return {}
    names = sorted(path.name.removesuffix(".json") for path in (folder / TAGS_FOLDER).glob("*.json"))
    return {name: tagged_version(folder, name) for name in names if _NAME.fullmatch(name)}


def tagged_version(folder: Location, name: str) -> int:
    """Return the version of a tag.

    Raises:
        NoSuchVersion: there is no such tag.
        CorruptStore: it cannot be read.
    """
    path = _tags_of(folder) / f"{check_tag(name)}.json"
    try:
        values = parse_object(read_bounded(path, _TAG_BYTES, advice=repair_command(folder)))
        return whole_number(values["version"], 1, _MAX_VERSION)
    except FileNotFoundError:
        raise NoSuchVersion(
            f"{folder} has no tag {name!r}: list them with placeray history --store {folder}"
        ) from None
    except (ValueError, KeyError) as error:
        raise CorruptStore(
            f"{path} cannot be read ({error}): delete it, then tag the version again"
        ) from error


def write_tag(folder: Location, name: str, version: int) -> None:
    """Let a tag name a version, which exists; the caller holds the lease.

    Raises:
        NoSuchVersion: the name cannot be a tag's, or the store is in a bucket.
        OutOfSpace: the disk is full.
    """
    path = _tags_of(folder)
    tags = _tags(folder)
    with explain_write_errors(path, 1 << 12):
        if check_tag(name) in read_tags(folder):
            tags.update(name, version)
        else:
            tags.create(name, version)
        flush(path / f"{name}.json")
        flush(path)


def remove_tag(folder: Location, name: str) -> None:
    """Remove a tag; the caller holds the lease.

    Raises:
        NoSuchVersion: there is no such tag.
    """
    tagged_version(folder, name)
    path = _tags_of(folder)
    with explain_write_errors(path, 1 << 12):
        _tags(folder).delete(name)
        flush(path)


def _tags_of(folder: Location) -> Path:
    if not isinstance(folder, Path):
        raise NoSuchVersion(
            f"{folder} is in a bucket, where versions have no tags: copy the store to a folder with placeray "
            "copy"
        )
    return folder / TAGS_FOLDER


def _tags(folder: Location) -> Any:
    import lance

    assert isinstance(folder, Path)
    return lance.dataset(folder / TABLE_FOLDER).tags

"""A source that is opened: where its photos come from, and its rows as they are read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pipelines.sources.bucket_folder import list_bucket
from pipelines.sources.containers import (
    LANCE,
    find_shards,
    is_container,
    read_rows,
    read_shards,
    shard_range,
)
from pipelines.sources.datasets import map_folder
from pipelines.sources.errors import SourceError
from pipelines.sources.folders import list_folder
from pipelines.sources.links import Skipped
from pipelines.sources.notes import Note
from pipelines.sources.paths import clean
from pipelines.sources.rows import list_rows
from pipelines.sources.source_file import SourceFile
from storage.objects.address import is_bucket_uri, options_for, require_no_secret
from storage.photos.uris import ObjectUri

__all__ = ["OpenedSource", "open_source", "split_options"]

_KINDS = "a folder, a .csv, .tsv or .parquet file"
_ALL_KINDS = "a .csv, .tsv, .parquet, .tar or .lance file"


@dataclass
class OpenedSource:
    """A source whose rows are read as they are needed, once.

    Attributes:
        name: As the user gave it, without options.
        origin: What its rows have as `source`: an absolute path, or the address of a bucket without options.
        rows: Of `pipelines.sources.LISTING_SCHEMA`, without `source`; duplicates are not marked.
        notes: On the listing as a whole.
        skipped: Links and folders without a row of their own; complete once all rows are read.
    """

    name: str
    origin: str
    rows: Iterator[dict[str, Any]]
    notes: list[Note] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def close(self) -> None:
        """Close the files that rows are still read from."""
        if isinstance(self.rows, Generator):
            self.rows.close()


def open_source(
    source: str | Path,
    *,
    root: str | Path | None = None,
    id_prefix: str = "",
    follow_links: bool = False,
    options: Mapping[str, str] | None = None,
    photo_column: str | None = None,
    needs_paths: bool = True,
) -> OpenedSource:
    """Open a source; the arguments and errors are those of `pipelines.sources.list_source`."""
    text, options = split_options(os.fspath(source), options)
    place = _place(text)
    names = shard_range(str(place))
    if len(names) > 1:
        if isinstance(place, Path):
            names = [name for name in names if not place.exists()] or names
        files = [SourceFile(_place(name), options) for name in names]
        return _of_shards(text, str(place), files, photo_column, id_prefix)
    is_folder = isinstance(place, Path) and place.is_dir() and place.suffix.lower() != LANCE
    if isinstance(place, Path) and not place.exists():
        raise SourceError(f"{text} does not exist: give {_KINDS}")
    if not is_folder and (isinstance(place, Path) or is_container(place.name)):
        file = SourceFile(place, options)
        return _of_file(text, file, root, id_prefix, follow_links, photo_column, needs_paths)
    if root is not None:
        raise SourceError("--root is for CSV and Parquet listings: leave it out for a folder")
    opened = OpenedSource(text, "", iter(()))
    if isinstance(place, Path):
        place = map_folder(place)
        rows = list_folder(place, id_prefix, follow_links=follow_links, skipped=opened.skipped)
    else:
        rows = list_bucket(place, id_prefix, options)
    opened.origin = clean(str(place))
    first = next(rows, None)
    if first is None and (shards := find_shards(SourceFile(place, options))):
        return _of_shards(text, opened.origin, shards, photo_column, id_prefix)
    if photo_column is not None:
        raise SourceError("--photo-column is for tables that hold photos: leave it out for a folder")
    opened.rows = rows if first is None else itertools.chain([first], rows)
    return opened


def split_options(source: str, options: Mapping[str, str] | None) -> tuple[str, dict[str, str]]:
    """Return the address of a source without the options in it, and all options.

    Raises:
        SecretInOptions: one of them is a secret.
        UnknownStorageOption: there is no such option.
    """
    given = dict(options or {})
    if is_bucket_uri(source):
        source, _, query = source.partition("?")
        given |= dict(parse_qsl(query, keep_blank_values=True))
        options_for(source.split("://", 1)[0], given)
    elif given:
        options_for("s3", given)
    return source, given


def _place(text: str) -> Path | ObjectUri:
    """Return where a source lies.

    Raises:
        SourceError: it is an address that cannot be asked for.
        SecretInOptions: it contains a user or a password.
    """
    if not is_bucket_uri(text):
        return Path(text).expanduser()
    require_no_secret(text)
    try:
        return ObjectUri.from_text(text)
    except ValueError as error:
        scheme = text.split("://", 1)[0]
        raise SourceError(f"the source {scheme}://... cannot be read: {error}") from None


def _of_file(
    name: str,
    file: SourceFile,
    root: str | Path | None,
    id_prefix: str,
    follow_links: bool,
    photo_column: str | None,
    needs_paths: bool,
) -> OpenedSource:
    """Open a listing, or one file of photos."""
    if not is_container(file.name):
        raise SourceError(f"{name} is neither a folder nor {_ALL_KINDS}: give one of them")
    place = file.place
    folder: Path | ObjectUri
    if root is not None and is_bucket_uri(os.fspath(root)):
        if "?" in os.fspath(root):
            raise SourceError("--root takes no options: give them with --source-option")
        folder = _place(os.fspath(root))
    elif root is not None:
        folder = Path(root)
    elif isinstance(place, Path):
        folder = place.parent
    else:
        folder = ObjectUri(place.scheme, place.bucket, place.key.rpartition("/")[0])
    if isinstance(folder, Path):
        if not folder.is_dir():
            raise SourceError(
                f"--root {folder} is not a folder: give the folder that the listed paths are relative to"
            )
        folder = folder.resolve()
    if isinstance(place, Path):
        file = SourceFile(place.resolve(), file.options, place.name)
    values, notes = read_rows(file, photo_column, needs_paths=needs_paths)
    rows = list_rows(values, folder, id_prefix, follow_links=follow_links, needs_paths=needs_paths)
    return OpenedSource(name, clean(str(file.place)), rows, notes)


def _of_shards(
    name: str, origin: str, files: list[SourceFile], photo_column: str | None, id_prefix: str
) -> OpenedSource:
    """Open many files of photos as one source."""
    files = [
        SourceFile(file.place.resolve(), file.options, file.label) if isinstance(file.place, Path) else file
        for file in files
    ]
    root = files[0].place if isinstance(files[0].place, ObjectUri) else files[0].place.parent
    return OpenedSource(name, clean(origin), list_rows(read_shards(files, photo_column), root, id_prefix))

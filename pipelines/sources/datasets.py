"""Data sets of visual place recognition: the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.errors import SourceError

__all__ = ["Dataset", "map_folder", "open_dataset"]

SPLITS = ("test", "val", "train")
DATABASE, QUERIES = ("database", "gallery", "ref"), ("queries", "query")
SEASONS = ("summer", "winter")  # of Nordland: the map, and the photos to locate
_LAYOUT = "folders database/ (or gallery/) and queries/, by themselves or in images/{split}/ or {split}/"


@dataclass(frozen=True)
class Dataset:
    """The two sides of a data set, each a folder or a listing.

    Attributes:
        name: Shown in reports.
        database: The images that form the map.
        queries: The photos to locate.
    """

    name: str
    database: Path
    queries: Path


def open_dataset(
    path: str | Path | None,
    *,
    split: str = "test",
    database: str | Path | None = None,
    queries: str | Path | None = None,
) -> Dataset:
    """Find database and queries of a data set.

    Known are the standard layout (`images/<split>/` with `database/` and `queries/`), the same without
    `images/` as MSLS is formatted, both folders at the top (also as `ref/` and `query/`), SVOX with
    `gallery/` and one folder `queries_<condition>/` for each condition, and Nordland with one folder for each
    season, of which summer is the map and winter is located unless others are named.

    Args:
        path: Folder of the data set; None where both sides are named.
        split: Which of train, val and test.
        database: Folder or listing of the database, below the data set or anywhere else.
        queries: Folder or listing of the queries, in the same way.

    Raises:
        SourceError: a side is not there, or there are several folders of queries and none is named.
    """
    top = None if path is None else Path(path).expanduser().resolve()
    folders = [] if top is None else [top, top / "images" / split, top / split]
    named_database = None if database is None else _named(database, "--database", folders)
    named_queries = None if queries is None else _named(queries, "--queries", folders)
    if named_database and named_queries:
        origin = top or named_queries.parent
        return Dataset(_dataset_name(origin), named_database, named_queries)
    for folder in folders:
        of_map = named_database or next(_database_folders(folder), None)
        photos = list(_query_folders(folder))
        if of_map and (named_queries or photos):
            chosen = named_queries or _only(photos, folder)
            return Dataset(_dataset_name(folder, chosen), of_map, chosen)
        seasons = [folder / season for season in SEASONS]
        if all(season.is_dir() for season in seasons):
            of_map, chosen = named_database or seasons[0], named_queries or seasons[1]
            return Dataset(f"{_dataset_name(folder)} {of_map.name} {chosen.name}", of_map, chosen)
    if path is None:
        raise SourceError("without a data set both sides must be named: give --database and --queries")
    raise SourceError(
        f"{path} is not a data set in a known layout: it needs {_LAYOUT.format(split=split)}; name other "
        "folders or listings with --database and --queries"
    )


def map_folder(path: Path) -> Path:
    """Return the folder whose images form the map: that of the database if `path` is a data set."""
    inside = (folder for split in SPLITS for folder in (path / "images" / split, path / split))
    for folder in (path, *inside):
        database = next(_database_folders(folder), None)
        if database is not None and next(_query_folders(folder), None) is not None:
            return database.resolve()
    return path.resolve()


def _database_folders(folder: Path) -> Iterator[Path]:
    return (folder / name for name in DATABASE if (folder / name).is_dir())


def _query_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of queries, first those of no condition."""
    yield from (folder / name for name in QUERIES if (folder / name).is_dir())
    conditions = (path for name in QUERIES for path in folder.glob(f"{name}_*") if path.is_dir())
    yield from sorted(conditions)


def _only(photos: list[Path], folder: Path) -> Path:
    if photos[0].name in QUERIES or len(photos) == 1:
        return photos[0]
    names = ", ".join(path.name for path in photos)
    raise SourceError(f"{folder} has several folders of queries: name one of {names} with --queries")


def _named(value: str | Path, flag: str, folders: list[Path]) -> Path:
    """Return the folder or listing that a flag names: below the data set, else from the working folder."""
    relative = Path(value).expanduser()
    for path in (*(folder / relative for folder in folders), relative):
        if path.exists():
            return path.resolve()
    raise SourceError(
        f"{flag} {value} does not exist: give a folder or a listing, from the data set or the working folder"
    )


def _dataset_name(folder: Path, queries: Path | None = None) -> str:
    names = [part for part in folder.parts if part not in {"images", *SPLITS}]
    name = names[-1] if names else folder.name
    of_condition = queries is not None and queries.parent == folder and queries.name not in QUERIES
    return f"{name} {queries.name}" if queries is not None and of_condition else name

"""Data sets in the standard layout of visual place recognition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.errors import SourceError

__all__ = ["Dataset", "map_folder", "open_dataset"]

SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class Dataset:
    """The folders of a data set.

    Attributes:
        name: Shown in reports.
        database: Folder of the images that form the map.
        queries: Folder of the photos to locate.
    """

    name: str
    database: Path
    queries: Path


def open_dataset(path: str | Path, *, split: str = "test") -> Dataset:
    """Find the folders database/ and queries/ of a data set.

    Args:
        path: Folder that contains them, or `images/<split>/` or `<split>/` with them.
        split: Which of train, val and test.

    Raises:
        SourceError: they are not there.
    """
    top = Path(path).expanduser().resolve()
    for folder in (top, top / "images" / split, top / split):
        if (folder / "database").is_dir() and (folder / "queries").is_dir():
            return Dataset(_dataset_name(folder), folder / "database", folder / "queries")
    raise SourceError(
        f"{path} is not a data set in the standard layout: it needs folders database/ and queries/, "
        f"by themselves or in images/{split}/ or {split}/"
    )


def map_folder(path: Path) -> Path:
    """Return the folder whose images form the map: database/ if `path` is a data set."""
    for folder in (path, path / "images" / "test", path / "test"):
        if (folder / "database").is_dir() and (folder / "queries").is_dir():
            return (folder / "database").resolve()
    return path.resolve()


def _dataset_name(folder: Path) -> str:
    names = [part for part in folder.parts if part not in {"images", *SPLITS}]
    return names[-1] if names else folder.name

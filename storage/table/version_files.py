"""Which files one version of the table consists of."""

from __future__ import annotations

from pathlib import Path

from storage.layout import TABLE_FOLDER
from storage.objects.files import Location
from storage.table.bucket_table import BucketTable
from storage.table.fragment_files import files_of
from storage.table.lance_table import read_errors_as_corruption

__all__ = ["version_file_names"]


def version_file_names(location: Location, version: int) -> set[str]:
    """Return the files of a version; see `files_of`.

    Raises:
        CorruptStore: it cannot be opened.
    """
    if isinstance(location, Path):
        import lance

        with read_errors_as_corruption(location, f"version {version} cannot be opened"):
            return files_of(location, lance.dataset(location / TABLE_FOLDER, version=version))
    return BucketTable.open(location, version=version).files

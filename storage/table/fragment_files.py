"""The files that an open version of the table consists of."""

from __future__ import annotations

from typing import Any

from storage.layout import TABLE_FOLDER, is_table_file_name
from storage.objects.files import Location
from storage.objects.location import objects_of
from storage.table.lance_table import manifest_name

__all__ = ["files_of"]


def files_of(location: Location, dataset: Any) -> set[str]:
    """Return the data files, files of deleted rows and of indexes, and the manifest of an open version.

    Args:
        location: The store.
        dataset: Its table, opened by pylance.

    Returns:
        Names relative to the store.
    """
    names = {f"{TABLE_FOLDER}/_versions/{manifest_name(int(dataset.version))}"}
    for fragment in dataset.get_fragments():
        metadata = fragment.metadata
        names |= {f"{TABLE_FOLDER}/data/{file.path}" for file in metadata.files}
        if metadata.deletion_file is not None:
            names.add(f"{TABLE_FOLDER}/{metadata.deletion_file.path(metadata.id)}")
    if dataset.describe_indices():
        listed = (each.name for each in objects_of(location).list(f"{TABLE_FOLDER}/_indices"))
        names |= {name for name in listed if is_table_file_name(name)}
    return names

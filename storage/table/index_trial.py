"""An index before it is committed: a version beside the others, which no reader finds, to measure it by.

Lance calls such a version detached. Its manifest lies with the others under another kind of name, and its
number is drawn at random.
"""

from __future__ import annotations

import re
from typing import Any

from storage.layout import TABLE_FOLDER
from storage.objects.files import Location, file_names, remove_files
from storage.table.index_segments import using

__all__ = ["TRIAL_MANIFEST", "forget_trials", "trial_version"]

TRIAL_MANIFEST = r"d\d{1,20}\.manifest"
_DRAWS = 5  # of a number that is not taken


def trial_version(dataset: Any, segment: Any) -> Any:
    """Return a detached version in which a segment is the index on the descriptors; see `forget_trials`.

    Args:
        dataset: The head of the table, opened by pylance.
        segment: From `merged`, or the only one from `build_segment`.
    """
    from lance import LanceDataset

    change = using(dataset, [segment])
    return LanceDataset.commit(
        dataset, change, read_version=dataset.version, max_retries=_DRAWS, detached=True
    )


def forget_trials(folder: Location) -> None:
    """Remove every detached version of a store's table; needs the lease."""
    versions = folder / TABLE_FOLDER / "_versions"
    remove_files(versions / name for name in file_names(versions) if re.fullmatch(TRIAL_MANIFEST, name))

"""Photos of a drawn city, indexed by the real command, with their descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.living_store import IndexedPhotos
from pipelines.demo.dataset import draw_city
from storage.store import Store
from storage.table.schema import descriptor_matrix

__all__ = ["index_photos", "read_photos"]


def index_photos(folder: Path, count: int) -> IndexedPhotos:
    """Draw so many photos and index them, unless a run before has."""
    finished = folder / "finished"
    if finished.exists():
        return read_photos(folder)
    draw_city(folder / "city", database_images=count, query_images=2)
    command = [sys.executable, "-m", "pipelines.cli", "index", str(folder / "city/images/test/database")]
    command += ["--store", str(folder / "store"), "--features", "none", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    finished.touch()
    return read_photos(folder)


def read_photos(folder: Path) -> IndexedPhotos:
    """Return the photos that `index_photos` has indexed."""
    store = Store.open(folder / "store")
    table = pa.concat_tables(store.snapshot.table.scan(["uri", "descriptor"])).sort_by("uri")
    descriptors = descriptor_matrix(table).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    artifacts = tuple(store.artifact(digest) for digest in store.card.artifacts)
    return IndexedPhotos([Path(uri) for uri in table["uri"].to_pylist()], descriptors, store.card, artifacts)

"""A store beside files that are none of its business."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.hostile_stores import IDS, SHARD
from tests.support.store_samples import copied_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a store beside a folder of files that are none of its business."""
    (tmp_path / "victim").mkdir()
    for name in ("secret", "secret.parquet", f"{SHARD}.parquet", ".0123456789abcdef0123456789abcdef.tmp"):
        (tmp_path / "victim" / name).write_text(f"the contents of {name}")
    for path in (tmp_path / "victim").iterdir():
        os.utime(path, (0, 0))
    copied_store(tmp_path / "store", IDS)
    return tmp_path / "store"

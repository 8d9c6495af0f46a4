"""Folders of real data sets, for tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.paths import ROOT

__all__ = ["photo_set"]


def photo_set(name: str) -> Path:
    """Return the folder of a photo set such as `corridor`, or skip the test."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("PLACERAY_PHOTOS", default)) / name
    if not folder.is_dir():
        pytest.skip(f"photo set {name} is missing: set PLACERAY_PHOTOS to the folder that holds it")
    return folder

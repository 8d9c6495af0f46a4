"""Folders that tests read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["GOLDEN", "ROOT"]

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

"""How precisely similarities are compared in matching. Imports no torch."""

from __future__ import annotations

from typing import Literal

__all__ = ["MatchingPrecision"]

MatchingPrecision = Literal["exact", "fast"]
"""`exact` compares float32 similarities; `fast` approximate ones, of large feature maps in 8-bit integers."""

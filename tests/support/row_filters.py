"""Filters of rows for the tests of search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Between:
    """Rows whose latitude lies between two; with `told`, LanceDB is told half of it."""

    lowest: float
    highest: float
    told: bool = True
    columns: tuple[str, ...] = ("lat",)

    def mask(self, rows: pa.Table) -> np.ndarray:
        lat = pc.fill_null(rows["lat"], np.nan).to_numpy()
        return np.asarray((lat >= self.lowest) & (lat <= self.highest))

    def predicate(self) -> str | None:
        return f"lat >= {self.lowest}" if self.told else None


@dataclass(frozen=True)
class Tagged:
    """Rows with a text in their tags, or in their key where it is no tag."""

    text: str
    columns: tuple[str, ...] = ("tags", "image_id")

    def mask(self, rows: pa.Table) -> np.ndarray:
        tagged = pc.fill_null(pc.match_substring(rows["tags"], self.text), False)
        return np.asarray(pc.or_(tagged, pc.match_substring(rows["image_id"], self.text)))

    def predicate(self) -> str | None:
        return None

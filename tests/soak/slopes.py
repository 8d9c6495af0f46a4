"""Whether a series of measurements grows: its slope by least squares, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Slope", "slope"]

WARM_UP = 0.2  # of a run, left out


@dataclass(frozen=True)
class Slope:
    """Mean, growth per hour with its 95 % interval (as if samples were independent), and hours of the run."""

    mean: float
    per_hour: float
    low: float
    high: float
    hours: float

    def is_flat(self, share: float, least: float) -> bool:
        """Return whether growth over the run may be below this share of the mean, or below `least`."""
        return self.low * self.hours <= max(share * self.mean, least)

    def rounded(self) -> dict[str, Any]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit a line to what comes after the warm-up; at least three samples must be left."""
    start = int(len(seconds) * WARM_UP)
    x, y = np.asarray(seconds[start:], float) / 3600, np.asarray(values[start:], float)
    if len(x) < 3:
        raise ValueError(f"{len(x)} samples are too few for a slope")
    away = x - x.mean()
    spread = float((away**2).sum())
    fitted = float(away @ (y - y.mean())) / spread
    rest = y - y.mean() - fitted * away
    error = float(np.sqrt((rest**2).sum() / (len(x) - 2) / spread))
    half = 1.96 * error
    return Slope(float(y.mean()), fitted, fitted - half, fitted + half, float(x[-1] - x[0]))

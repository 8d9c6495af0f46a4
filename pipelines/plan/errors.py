"""Errors of plans."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["NoGpuFigure", "TrialFailed"]


class NoGpuFigure(PlacerayError, ValueError):
    """A plan with GPUs was requested where nothing says how fast one is."""

    reason = "no_gpu_figure"


class TrialFailed(PlacerayError, ValueError):
    """The trial could not use any of the photos."""

    reason = "trial_failed"

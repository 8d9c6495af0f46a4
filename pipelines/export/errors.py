"""Errors of exporting."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["ExportRefused", "ExportUnavailable"]


class ExportRefused(PlacerayError):
    """What was asked for cannot be exported."""

    reason = "export_refused"


class ExportUnavailable(PlacerayError, ImportError):
    """The packages that write ONNX are not installed."""

    reason = "export_unavailable"

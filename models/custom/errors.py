"""Errors of models that a file describes. Imports no torch."""

from __future__ import annotations

from storage.errors import PlacerayError

__all__ = ["BadModelFile", "ModelUnfit"]


class BadModelFile(PlacerayError, ValueError):
    """A model file cannot be read, or does not describe a model."""

    reason = "bad_model_file"


class ModelUnfit(PlacerayError):
    """A model failed its self-test: its descriptors cannot be compared.

    Attributes:
        reason: Machine-readable: model_not_a_module, model_output, model_not_unit, model_not_finite,
            model_not_repeatable, model_depends_on_batch, model_constant or model_input_size.
    """

    reason = "model_unfit"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

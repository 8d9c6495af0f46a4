"""Fine-tuning on Ray Train: mining, training steps, validation, the report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.training.job import finetune
    from pipelines.training.settings import TrainingSettings, settings_of

__all__ = ["TrainingSettings", "finetune", "settings_of"]


def __getattr__(name: str) -> Any:
    # On first use: workers do not need the job.
    if name in __all__:
        module = "job" if name == "finetune" else "settings"
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Evaluating a data set: ground truth, Recall@K, the report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.evaluation.job import evaluate
    from pipelines.evaluation.recall import measure_recall
    from pipelines.evaluation.report import write_report
    from pipelines.evaluation.result import Evaluation, QueryOutcome

__all__ = ["Evaluation", "QueryOutcome", "evaluate", "measure_recall", "write_report"]

_MODULES = {"evaluate": "job", "measure_recall": "recall", "write_report": "report"}


def __getattr__(name: str) -> Any:
    # On first use: the job loads Ray Data and the models.
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'result')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Where was this photo taken? Visual place recognition over a whole city.

    import placeray

    placeray.index("photos/", "city-store")
    engine = placeray.QueryEngine.open("city-store")
    answer = engine.answer("where-is-this.jpg")
    answer.matches[0].record.image_id

Names are loaded when they are first used, so that importing the package is quick and a client of a service
loads no PyTorch. Import placeray before torch: PyTorch's threads then sleep while they wait for each other,
which is much faster beside other busy processes (see `models.runtime.threads`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from placeray.shadowing import refuse_shadowing_packages

refuse_shadowing_packages()

from models.runtime.threads import sleep_while_waiting  # noqa: E402 - only now is it certain whose models it is

sleep_while_waiting()

from storage.version import __version__  # noqa: E402

if TYPE_CHECKING:
    from models.images.decoder import decode_image
    from models.matching import mutual_nn_count
    from models.weights import load_extractor
    from pipelines.evaluation.comparison import compare
    from pipelines.evaluation.job import evaluate
    from pipelines.indexing.job import index
    from pipelines.training.job import finetune
    from placeray.plotting import plot_matches
    from serving.answer import QueryResult
    from serving.client import PlaceClient
    from serving.engine import QueryEngine
    from serving.priors.soft_prior import SoftPrior
    from storage.errors import PlacerayError
    from storage.position import Position
    from storage.search.filters import AllOf, Heading, Inside, Near, Tagged, Taken, inside_geojson
    from storage.store import Store

__all__ = [
    "AllOf",
    "Heading",
    "Inside",
    "Near",
    "PlaceClient",
    "PlacerayError",
    "Position",
    "QueryEngine",
    "QueryResult",
    "SoftPrior",
    "Store",
    "Tagged",
    "Taken",
    "__version__",
    "compare",
    "decode_image",
    "evaluate",
    "finetune",
    "index",
    "inside_geojson",
    "load_extractor",
    "mutual_nn_count",
    "plot_matches",
]

_MODULES = {
    "AllOf": "storage.search.filters",
    "Heading": "storage.search.filters",
    "Inside": "storage.search.filters",
    "Near": "storage.search.filters",
    "PlaceClient": "serving.client",
    "PlacerayError": "storage.errors",
    "Position": "storage.position",
    "QueryEngine": "serving.engine",
    "QueryResult": "serving.answer",
    "SoftPrior": "serving.priors.soft_prior",
    "Store": "storage.store",
    "Tagged": "storage.search.filters",
    "Taken": "storage.search.filters",
    "compare": "pipelines.evaluation.comparison",
    "decode_image": "models.images.decoder",
    "evaluate": "pipelines.evaluation.job",
    "finetune": "pipelines.training.job",
    "index": "pipelines.indexing.job",
    "inside_geojson": "storage.search.filters",
    "load_extractor": "models.weights",
    "mutual_nn_count": "models.matching",
    "plot_matches": "placeray.plotting",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

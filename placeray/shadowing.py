"""A clear message where a folder of the user's hides one of placeray's packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["refuse_shadowing_packages"]

_PACKAGES = ("models", "storage", "serving", "pipelines")


def refuse_shadowing_packages() -> None:
    """Check that placeray's packages are those that lie beside `placeray` itself.

    Raises:
        ImportError: Python finds another package or module of one of these names first.
    """
    home = Path(__file__).resolve().parents[1]
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(f"placeray's package {name!r} is missing in {home}: install placeray again")
        places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
        if not any(Path(place).resolve() == home / name for place in places):
            raise ImportError(
                f"{places[0]} shadows placeray's package {name!r}: run from another folder, or rename it"
            )

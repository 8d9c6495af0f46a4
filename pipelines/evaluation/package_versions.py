"""Versions of the packages that an answer depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from storage.version import __version__

__all__ = ["package_versions"]

_PACKAGES = ("torch", "timm", "numpy", "pillow", "pillow-heif")


def package_versions() -> dict[str, str | None]:
    """Return the versions by name; None for a package that is not installed."""
    return {
        "placeray": __version__,
        **{name: _version(name) for name in _PACKAGES},
        "faiss": _version("faiss-cpu") or _version("faiss-gpu"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

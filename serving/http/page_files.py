"""Static files of the page and of the map library, with their headers."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import xstatic.pkg.leaflet as leaflet
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

__all__ = ["LEAFLET", "WEB", "PageFiles", "page_headers", "static_paths"]

WEB = Path(str(resources.files("serving"))) / "web"
LEAFLET = Path(leaflet.BASE_DIR)


def page_headers(tiles: str) -> dict[str, str]:
    """Return the headers of the page's files: all from this origin, images from the tile server too.

    Args:
        tiles: URL template of street tiles; empty for none.
    """
    tile_origin = ""
    if tiles:
        parts = urlsplit(tiles.replace("{s}", "*"))
        tile_origin = f" {parts.scheme}://{parts.netloc}"
    policy = (
        f"default-src 'self'; img-src 'self' blob: data:{tile_origin}; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "strict-origin-when-cross-origin",
        "cache-control": "no-cache",
    }


class PageFiles:
    """ASGI application that serves the files of a folder, as listed at the start.

    A file is always sent whole; Range headers are ignored.

    Args:
        folder: Holds the files.
        headers: Added to each response.
    """

    def __init__(self, folder: Path, headers: dict[str, str]) -> None:
        self._files = StaticFiles(directory=folder)
        self._names = frozenset(_names(folder))
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send one file.

        Raises:
            HTTPException: 404 for an unknown name, 405 for methods other than GET and HEAD.
        """

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        if scope["path"].removeprefix(scope["root_path"] + "/") not in self._names:
            raise HTTPException(404)
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await self._files({**scope, "headers": headers}, receive, with_headers)


def static_paths() -> list[str]:
    """Return the paths of the page's files, which need no token."""
    return [*(f"/web/{name}" for name in _names(WEB)), *(f"/web/leaflet/{name}" for name in _names(LEAFLET))]


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]

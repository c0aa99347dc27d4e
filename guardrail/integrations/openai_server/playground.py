"""The page to try the guard on: three files of this package and an icon, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

__all__ = [
    "page_routes",
]

FOLDER = Path(__file__).parent / "page"

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def page_routes() -> APIRouter:
    """The page's files, read once."""
    router = APIRouter()
    for path, (name, media_type) in FILES.items():
        router.add_api_route(path, _serving((FOLDER / name).read_bytes(), media_type), methods=["GET"])
    return router


def _serving(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(content, media_type=media_type)

    return serve

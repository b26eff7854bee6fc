"""The page at `/`: three files, read when this is imported, so that no request touches the file system."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

_KINDS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_FILES = {name: files("elmokit.serve").joinpath("page", name).read_bytes() for name in _KINDS}
# Nothing is loaded from elsewhere, and no other site may show the page in a frame.
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
_HEADERS = {
    "Content-Security-Policy": _POLICY + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/")
async def index() -> Response:
    """Return the page."""
    return _file("index.html")


@router.get("/page/page.css")
async def style() -> Response:
    """Return how it looks."""
    return _file("page.css")


@router.get("/page/page.js")
async def script() -> Response:
    """Return what it does."""
    return _file("page.js")


def _file(name: str) -> Response:
    return Response(_FILES[name], headers=_HEADERS, media_type=_KINDS[name])

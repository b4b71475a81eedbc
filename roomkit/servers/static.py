"""The two pages: a handful of small files, read once, served from memory under a strict policy."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
}
_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
_SERVED = frozenset({*_TYPES, ".png", ".ico", ".woff2", ".webp", ".mp3", ".wav"})


class Page(NamedTuple):
    body: bytes
    media_type: str
    etag: str


def page_routes(root: Path) -> list[BaseRoute]:
    """`/`, `/supervisor` and `/pages/...`. Files appear by the names they had when the app was made."""
    files = _read(root)

    async def serve(request: Request) -> Response:
        return _answer(files.get(request.path_params["path"]), request)

    async def chat(request: Request) -> Response:
        return _answer(files.get("chat/index.html"), request)

    async def supervisor(request: Request) -> Response:
        return _answer(files.get("supervisor/index.html"), request)

    return [
        Route("/", chat, name="chat page"),
        Route("/supervisor", supervisor, name="supervisor page"),
        Route("/pages/{path:path}", serve, name="page files"),
    ]


def _answer(page: Page | None, request: Request) -> Response:
    if page is None:
        return Response("not found", 404, HEADERS, media_type="text/plain")
    headers = {**HEADERS, "etag": page.etag}
    if request.headers.get("if-none-match") == page.etag:
        return Response(status_code=304, headers=headers)
    return Response(page.body, 200, headers, media_type=page.media_type)


def _read(root: Path) -> dict[str, Page]:
    pages: dict[str, Page] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix not in _SERVED or not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
            continue  # also what only a link has brought in here
        body = path.read_bytes()
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        pages[path.relative_to(root).as_posix()] = Page(body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return pages

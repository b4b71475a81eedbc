"""The two pages: a handful of small files, read once, served from memory under a strict policy.

Over a slow line each file that is asked for costs a way there and back. So a page names all of its scripts at once, and
names them by an address that changes with them: what a browser has kept it need not ask about again.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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


_PACKED = frozenset({".js", ".css", ".html", ".svg", ".json"})
_IMPORT = re.compile(r"""\b(?:import|export)\b[^"';]*["'](\.[^"']+)["']""")
_SCRIPT = re.compile(rb'<script type="module" src="pages/([^"]+)">')
_FILES = re.compile(rb'((?:href|src)=")pages/')
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))")
_DATED = re.compile(r"~([0-9a-f]+)/")
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Page:
    body: bytes
    media_type: str
    packs: bool

    @cached_property
    def etag(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:20]

    @cached_property
    def packed(self) -> bytes:
        return gzip.compress(self.body, mtime=0)


def page_routes(root: Path) -> list[BaseRoute]:
    """`/`, `/supervisor` and `/pages/...`. Files appear by the names they had when the app was made."""
    files = _read(root)
    mark = hashlib.sha256("".join(f"{name} {page.etag} " for name, page in files.items()).encode()).hexdigest()[:12]
    starts = {name: _start(page, mark, files) for name, page in files.items() if name.endswith("/index.html")}

    async def serve(request: Request) -> Response:
        path = request.path_params["path"]
        # An address of another version (of a neighbour that is being replaced) is answered too, but not for good.
        dated = _DATED.match(path)
        return _answer(files.get(path[dated.end() :] if dated else path), request, bool(dated and dated[1] == mark))

    async def chat(request: Request) -> Response:
        return _answer(starts.get("chat/index.html"), request)

    async def supervisor(request: Request) -> Response:
        return _answer(starts.get("supervisor/index.html"), request)

    return [
        Route("/", chat, name="chat page"),
        Route("/supervisor", supervisor, name="supervisor page"),
        Route("/pages/{path:path}", serve, name="page files"),
    ]


def _answer(page: Page | None, request: Request, for_good: bool = False) -> Response:
    if page is None:
        return Response("not found", 404, HEADERS, media_type="text/plain")
    packed = page.packs and _GZIP.search(request.headers.get("accept-encoding", "")) is not None
    etags = (f'"{page.etag}"', f'"{page.etag}-gzip"')
    headers = {**HEADERS, "etag": etags[packed]}
    if for_good:
        headers["cache-control"] = _FOR_GOOD
    if page.packs:
        headers["vary"] = "accept-encoding"
    if request.headers.get("if-none-match") in etags:
        return Response(status_code=304, headers=headers)
    if packed:
        headers["content-encoding"] = "gzip"
    return Response(page.packed if packed else page.body, 200, headers, media_type=page.media_type)


def _start(page: Page, mark: str, files: Mapping[str, Page]) -> Page:
    """The page as it is served: its files under their dated address, all scripts named that its own will ask for."""
    first = _SCRIPT.search(page.body)
    body = page.body
    if first is not None:
        ahead = "".join(
            f'<link rel="modulepreload" href="pages/{name}">\n  ' for name in _needs(first[1].decode(), files)
        )
        body = body[: first.start()] + ahead.encode() + body[first.start() :]
    return Page(_FILES.sub(rb"\1pages/~" + mark.encode() + b"/", body), page.media_type, page.packs)


def _needs(script: str, files: Mapping[str, Page]) -> list[str]:
    """The scripts that `script` imports, and those that they import, nearest first."""
    found = [script]
    for name in found:
        for target in _IMPORT.findall(files[name].body.decode()) if name in files else ():
            full = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            if full in files and full not in found:
                found.append(full)
    return found[1:]


def _read(root: Path) -> dict[str, Page]:
    pages: dict[str, Page] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix not in _SERVED or not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
            continue  # also what only a link has brought in here
        body = path.read_bytes()
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        pages[path.relative_to(root).as_posix()] = Page(body, kind, path.suffix in _PACKED)
    return pages

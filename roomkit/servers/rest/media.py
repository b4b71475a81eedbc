"""Files: up through the API, down through signed links that expire (D35)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from roomkit.errors import AccessDenied, RoomKitError
from roomkit.ports.blob import BlobInfo
from roomkit.servers.access import Action
from roomkit.servers.problems import NotFound, TooLarge, UnsupportedType, problem
from roomkit.servers.rest.api import Body, Call, Nothing, endpoints, reply

if TYPE_CHECKING:
    from roomkit.servers.door import Door

API, endpoint = endpoints()
PURPOSE = "media"
INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/")


class Upload(Body):
    filename: str | None = Field(default=None, max_length=200)


@endpoint("POST", "/rooms/{room}/media", Action.MEDIA, Upload, status=201, raw=True)
async def upload(call: Call, query: Upload) -> Response:
    """Store a file; the body is its bytes"""
    options = call.door.options
    mime = call.request.headers.get("content-type", "").split(";")[0].strip().lower()
    if mime not in options.media_types:
        raise UnsupportedType(f'files of type "{mime}" are not accepted')
    claimed = call.request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed[:20]) > options.media_bytes:
        raise TooLarge(f"a file has at most {options.media_bytes} bytes")
    room = await call.rooms.get_room(call.room_id)
    blobs = call.door.kit.blobs
    info = await blobs.put(
        call.principal.tenant,
        _limited(call.request, options.media_bytes),
        mime_type=mime,
        filename=query.filename,
        room_id=room.id,
    )
    href, expires_at = link(call.door, call.request, info)
    return reply(
        201,
        url=f"blob:{info.id}",
        href=href,
        mime_type=info.mime_type,
        size_bytes=info.size_bytes,
        filename=info.filename,
        expires_at=expires_at,
    )


@endpoint("GET", "/rooms/{room}/media/{blob}", Action.MEDIA)
async def media_link(call: Call, _: Nothing) -> Response:
    """A link to a file of this room, good for ten minutes"""
    info = await call.door.kit.blobs.info(call.principal.tenant, call.path("blob"))
    if info is None or info.room_id != call.room_id:
        raise NotFound("there is no such file in this room")
    href, expires_at = link(call.door, call.request, info)
    return reply(href=href, expires_at=expires_at)


def link(door: Door, request: Request, info: BlobInfo) -> tuple[str, float]:
    """A path that carries its own permission."""
    path, expires_at = signed(door, info.id, info.tenant, door.options.media_link_s)
    return f"{request.scope.get('root_path', '')}{path}", expires_at


def public_link(door: Door, blob_id: str, tenant: str) -> str:
    """The same for a vendor that fetches the file: the whole URL, under the configured public one."""
    return f"{door.options.base_url}{signed(door, blob_id, tenant, door.options.vendor_link_s)[0]}"


def signed(door: Door, blob_id: str, tenant: str, seconds: float) -> tuple[str, float]:
    """The path of a link that holds for `seconds`, and when that ends."""
    expires_at = float(int(door.now() + seconds))
    proof = door.kit.tokens.sign(PURPOSE, _claim(tenant, blob_id), expires_at)
    query = urlencode({"t": tenant, "e": int(expires_at), "s": proof})
    return f"/media/{quote(blob_id, safe='')}?{query}", expires_at


async def download(door: Door, request: Request) -> Response:
    """Serves a signed link."""
    try:
        return await _download(door, request)
    except RoomKitError as error:
        return problem(error)


async def _download(door: Door, request: Request) -> Response:
    blob_id, query = request.path_params["blob"], request.query_params
    tenant, expires = query.get("t", ""), query.get("e", "")
    if not (expires.isascii() and expires.isdecimal() and len(expires) < 15):
        raise AccessDenied("this link is not whole; ask for a new one")
    door.kit.tokens.check(PURPOSE, _claim(tenant, blob_id), float(expires), query.get("s", ""))
    return await served(door, tenant, blob_id)


async def served(door: Door, tenant: str, blob_id: str) -> Response:
    """The file itself, as a browser may have it. Raises `NotFound`."""
    info = await door.kit.blobs.info(tenant, blob_id)
    if info is None:
        raise NotFound("the file is gone")
    headers = {
        "content-length": str(info.size_bytes),
        "cache-control": "private, max-age=300",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "content-disposition": _disposition(info),
    }
    return StreamingResponse(door.kit.blobs.read(tenant, blob_id), headers=headers, media_type=info.mime_type)


def _disposition(info: BlobInfo) -> str:
    kind = "inline" if info.mime_type.startswith(INLINE) else "attachment"
    return f"{kind}; filename*=UTF-8''{quote(info.filename, safe='')}" if info.filename else kind


def _claim(tenant: str, blob_id: str) -> str:
    return f"{tenant}\n{blob_id}"


async def _limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"a file has at most {limit} bytes")
        if chunk:
            yield chunk

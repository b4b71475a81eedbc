"""A kit with its app, and clients of it, all in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from roomkit.channels.websocket import WebSocketChannel
from roomkit.kit import RoomKit
from roomkit.ports.blob import BlobInfo
from roomkit.servers.asgi import RoomApp, create_app
from roomkit.testing.asgi import StreamingASGITransport
from roomkit.testing.clock import VirtualClock
from roomkit.testing.sockets import AsgiSocket

SECRET = "a secret for these tests only"


class MemoryBlobs:
    """The smallest BlobStore."""

    def __init__(self) -> None:
        self._blobs: dict[tuple[str, str], tuple[BlobInfo, bytes]] = {}

    async def put(self, tenant, data, *, mime_type, filename=None, room_id=None) -> BlobInfo:
        body = b"".join([chunk async for chunk in data])
        info = BlobInfo(f"blob{len(self._blobs)}", tenant, mime_type, len(body), filename, room_id)
        self._blobs[tenant, info.id] = (info, body)
        return info

    async def info(self, tenant: str, blob_id: str) -> BlobInfo | None:
        found = self._blobs.get((tenant, blob_id))
        return found[0] if found else None

    async def read(self, tenant: str, blob_id: str) -> AsyncIterator[bytes]:
        yield self._blobs[tenant, blob_id][1]

    async def delete(self, tenant: str, blob_id: str) -> bool:
        return self._blobs.pop((tenant, blob_id), None) is not None


@dataclass
class House:
    kit: RoomKit
    app: RoomApp
    http: httpx2.AsyncClient

    def token(self, role: str, room: str | None = None, **more: Any) -> str:
        return self.kit.tokens.mint(role, room, **{"id": role, **more})

    async def call(self, method: str, path: str, role: str = "admin", json: Any = None, **more: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.token(role)}", **more.pop("headers", {})}
        return await self.http.request(method, f"/api{path}", json=json, headers=headers, **more)

    def socket(self, **more: Any) -> AsgiSocket:
        return AsgiSocket(self.app, **more)

    @asynccontextmanager
    async def joined(self, room: str, role: str = "guest", **more: Any) -> AsyncIterator[AsgiSocket]:
        """A socket that has its snapshot."""
        async with self.socket() as socket:
            token = self.token(role, room if role == "guest" else None, **more)
            await socket.say("auth", token=token, v=1)
            await socket.get("welcome")
            await socket.say("join", room_id=room)
            await socket.get("snapshot")
            yield socket


@asynccontextmanager
async def house(kit: RoomKit | None = None, **options: Any) -> AsyncIterator[House]:
    kit = kit or RoomKit(clock=VirtualClock(), token_secrets=[SECRET], blobs=MemoryBlobs())
    if "web" not in kit.channels:
        kit.register_channel(WebSocketChannel("web"))
    app = create_app(kit, **options)
    transport = StreamingASGITransport(app)
    async with kit, httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
        try:
            yield House(kit, app, http)
        finally:
            await app.aclose()

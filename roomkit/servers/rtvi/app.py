"""The door as an app: who may come in, by which way, to which room."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from roomkit.errors import AccessDenied, Overloaded, RoomKitError
from roomkit.models.access import Principal
from roomkit.servers.door import Door, Unauthenticated
from roomkit.servers.options import ServerOptions
from roomkit.servers.problems import spoken
from roomkit.servers.rtvi.client import Client
from roomkit.servers.rtvi.entry import admitted, gone
from roomkit.servers.rtvi.links import SocketLink
from roomkit.servers.rtvi.offers import Offers
from roomkit.servers.rtvi.server import RTVIServer

log = logging.getLogger(__name__)


def rtvi_app(server: RTVIServer, **options: Any) -> Starlette:
    """The door as an app to mount. `options` are those of `kit.asgi()`: tokens, allowed origins and limits are the same
    as everywhere. A client that may not come in is closed with 4003, one from a foreign page with 4403; requests are
    answered 401, 403, 404 or 429.

    A web socket at `/`; with a voice also `/api/offer` (WebRTC) and `/start`, where a client learns how to connect."""
    door = Door(server.kit, ServerOptions(**options))

    async def endpoint(socket: WebSocket) -> None:
        if not door.origin_allowed(socket.headers.get("origin"), socket.headers.get("host")):
            await _refuse(socket, 4403, "origin not allowed")
            return
        if gone(door) or door.lobby.full:
            await _refuse(
                socket, *((1001, "the server is going away") if gone(door) else (1013, "too many connections"))
            )
            return
        try:
            principal, room_id = await admitted(server, door, socket, dict(socket.query_params))
        except RoomKitError as error:
            reason = str(error) if isinstance(error, (Unauthenticated, AccessDenied, Overloaded)) else "no such room"
            await _refuse(socket, 4003, reason)
            return
        if not door.lobby.admit(principal):
            await _refuse(socket, 1013, "too many connections of yours")
            return
        await socket.accept()
        await _serve(server, door, socket, principal, room_id)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        """Run where the app stands alone; mounted, its clients end with their connections."""
        del app
        yield
        door.lobby.cut_all(1001, "going away")
        door.lobby.close()
        await door.scope.aclose()

    offers = Offers(server, door)
    routes = [
        WebSocketRoute("/", endpoint),
        Route("/start", offers.start, methods=["POST"]),
        Route("/api/offer", offers.offer, methods=["POST"]),
        Route("/api/offer", offers.candidates, methods=["PATCH"]),
        Route("/sessions/{session}/api/offer", offers.offer, methods=["POST"]),
        Route("/sessions/{session}/api/offer", offers.candidates, methods=["PATCH"]),
    ]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=door.options.allowed_origins,
        allow_methods=["POST", "PATCH"],
        allow_headers=["authorization", "content-type"],
    )
    return Starlette(routes=routes, middleware=[cors] if door.options.allowed_origins else [], lifespan=lifespan)


async def _serve(server: RTVIServer, door: Door, socket: WebSocket, principal: Principal, room_id: str) -> None:
    link = SocketLink(
        socket,
        frame_bytes=4 * door.options.limits.frame_bytes,
        send_s=door.options.send_timeout_s,
        player_rate=server.voice.backend.player_rate if server.voice is not None else 24_000,
    )
    client = Client(server, door, principal, room_id, by="socket")
    door.lobby.add(client)
    try:
        await client.enter()
        await client.run(link)
    except RoomKitError as error:
        log.info("an RTVI client could not come in: %s", error)
        await _close(socket, 4003 if isinstance(error, AccessDenied) else 1008, spoken(error)[:100])
    finally:
        await client.close()
        door.lobby.remove(client)


async def _refuse(socket: WebSocket, code: int, reason: str) -> None:
    await socket.accept()  # Before it is accepted a browser hears no code.
    await socket.close(code, reason[:100])


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    try:
        await socket.close(code, reason)
    except (RuntimeError, OSError):
        return

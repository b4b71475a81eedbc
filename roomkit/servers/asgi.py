"""The app: REST, the room socket, webhooks, pages and health on one kit, mountable under any prefix."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from roomkit.errors import RoomKitError
from roomkit.runtime import bounded
from roomkit.servers import openapi, static
from roomkit.servers.door import Door
from roomkit.servers.metrics import metrics
from roomkit.servers.options import ServerOptions
from roomkit.servers.problems import answer, problem
from roomkit.servers.rest import ENDPOINTS
from roomkit.servers.rest.api import route
from roomkit.servers.rest.media import download, public_link
from roomkit.servers.socket import SocketDoor
from roomkit.servers.webhooks import webhook

if TYPE_CHECKING:
    from roomkit.kit import RoomKit

log = logging.getLogger(__name__)
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
LEAVE_S = 3.0


class RoomApp(Starlette):
    """The ASGI app of one kit.

    It starts the kit with its lifespan, or, mounted where there is none, on the first request (D38). `drain` is what a
    server calls before it stops.
    """

    def __init__(self, kit: RoomKit, options: ServerOptions) -> None:
        self.door = Door(kit, options)
        self._socket = SocketDoor(self.door)
        self._starting: asyncio.Future[None] | None = None
        self._nodes: set[Any] = set()
        middleware: list[Middleware] = []
        if options.allowed_origins:
            middleware.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=list(options.allowed_origins),
                    allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                    allow_headers=["authorization", "content-type"],
                    expose_headers=["retry-after"],
                )
            )
        super().__init__(
            routes=self._routes(),
            middleware=middleware,
            lifespan=self._lifespan,
            exception_handlers={404: _not_found, 405: _not_allowed, Exception: _broken},
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            try:
                await self._ensure_started()
            except RoomKitError as error:
                await _refuse(error, scope, receive, send)
                return
        if scope["type"] == "websocket":
            # Straight to the door: every wrapper in between would be paid for by each frame of each client.
            if _path(scope) == "/socket":
                await self._socket(scope, receive, send)
            elif _path(scope) == "/nodes" and (nodes := self.door.kit.engine.nodes) is not None:
                from roomkit.servers.node import serve_node

                await serve_node(nodes, self._nodes, scope, receive, send)
            elif _path(scope).startswith("/voice/"):
                from roomkit.servers.voice import serve_voice

                await serve_voice(self.door, scope, receive, send, _path(scope))
            else:
                await send({"type": "websocket.close", "code": 4404})
            return
        await super().__call__(scope, receive, send)

    async def drain(self, timeout: float | None = None) -> bool:
        """Stops taking work, lets running replies finish or checkpoint (at most `timeout` seconds, default
        `drain_s`), then sends every socket away with a resumable code (R11). True when nothing was cut short."""
        door = self.door
        door.draining = True
        finished = await door.kit.drain(timeout if timeout is not None else door.options.drain_s)
        door.lobby.cut_all(1001, "going away")
        for wire in tuple(self._nodes):  # The rooms are given away: other processes need not ask here any more.
            await wire.close()
        try:
            await bounded(door.lobby.emptied(), LEAVE_S, "closing sockets")
        except TimeoutError:
            log.warning("%d sockets did not close in time", len(door.lobby))
        return finished

    async def aclose(self) -> None:
        """Ends what the app runs; the kit stays the host's. Idempotent."""
        self.door.draining = True
        self.door.lobby.cut_all(1001, "going away")
        self.door.lobby.close()
        await self.door.scope.drain(LEAVE_S)
        await self.door.scope.aclose()
        await self.door.outlets.aclose()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        mine = not self.door.kit.engine.started
        await self._ensure_started()
        try:
            yield
        finally:
            if not self.door.draining:
                await self.drain()
            await self.aclose()
            if mine:
                await self.door.kit.aclose()

    async def _ensure_started(self) -> None:
        if self.door.kit.engine.started:
            self.door.kit.engine.watch()
            return
        if self._starting is not None:
            await asyncio.shield(self._starting)
            return
        self._starting = asyncio.get_running_loop().create_future()
        try:
            await self.door.kit.start()
        except BaseException as error:
            self._starting.set_exception(error if isinstance(error, Exception) else RuntimeError("start was cancelled"))
            self._starting.exception()
            raise
        else:
            self.door.kit.engine.watch()
            self._starting.set_result(None)
        finally:
            self._starting = None

    def _routes(self) -> list[BaseRoute]:
        door, options = self.door, self.door.options
        described = partial(_describe, door)
        rows: list[BaseRoute] = [
            Route("/healthz", _healthz),
            Route("/readyz", partial(_readyz, door)),
            Route("/metrics", partial(metrics, door)),
            Route("/api/openapi.json", described),
            *(route(door, row) for row in ENDPOINTS),
            Route("/webhooks/{channel}", partial(webhook, door), methods=["GET", "POST"]),
            Route("/media/{blob}", partial(download, door)),
            Route("/voice", partial(_calls, door)),
            Route("/voice/{channel}", partial(_call_posted, door), methods=["POST"]),
        ]
        if options.pages:
            rows += static.page_routes(options.pages_root)
        return rows


def create_app(kit: RoomKit, options: ServerOptions | None = None, **settings: Any) -> RoomApp:
    """The app of `kit`. `settings` are fields of `ServerOptions`. A kit without the web channel gets one."""
    options = options if options is not None else ServerOptions(**settings)
    if options.web_channel not in kit.channels:
        from roomkit.channels.websocket import WebSocketChannel

        kit.register_channel(WebSocketChannel(options.web_channel))
    app = RoomApp(kit, options)
    if options.base_url is not None:
        # Vendors fetch files of ours by expiring links under the public URL.
        kit.engine.media_link = partial(public_link, app.door)
    return app


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"alive": True})


async def _readyz(door: Door, _request: Request) -> Response:
    """The truth: started, not draining, and the store takes writes (D38, D40)."""
    ready, reason = door.kit.ready
    if door.draining:
        ready, reason = False, "draining"
    return JSONResponse({"ready": ready, "reason": reason}, 200 if ready else 503)


async def _describe(door: Door, request: Request) -> Response:
    base = door.options.base_url or request.scope.get("root_path", "")
    return JSONResponse(openapi.describe(ENDPOINTS, base=base))


async def _calls(door: Door, request: Request) -> Response:
    from roomkit.servers.voice import calls

    return await calls(door, request)


async def _call_posted(door: Door, request: Request) -> Response:
    from roomkit.servers.voice import call_posted

    return await call_posted(door, request)


async def _not_found(_request: Request, _error: Exception) -> Response:
    return answer(404, "not_found", "there is nothing here")


async def _not_allowed(_request: Request, _error: Exception) -> Response:
    return answer(405, "method_not_allowed", "this address does not take that method")


async def _broken(_request: Request, error: Exception) -> Response:
    return problem(error)


async def _refuse(error: RoomKitError, scope: Any, receive: Any, send: Any) -> None:
    """The kit could not be started: say so, and let the next request try again."""
    log.error("the kit could not be started: %s", error)
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013})
    elif _path(scope) == "/healthz":
        await JSONResponse({"alive": True})(scope, receive, send)
    else:
        await answer(503, "unavailable", "the server is not ready", headers={"retry-after": "2"})(scope, receive, send)


def _path(scope: Any) -> str:
    path, root = scope["path"], scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path

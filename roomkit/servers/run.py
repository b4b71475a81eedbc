"""Running the app with uvicorn, so that a stop is a drain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from roomkit.servers.asgi import RoomApp

if TYPE_CHECKING:
    from types import FrameType


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM or SIGINT the app drains; a second one forces the end (R11)."""

    def __init__(self, config: uvicorn.Config, app: RoomApp) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not self.force_exit:
            await self._app.drain()
        for connection in self.server_state.connections:
            connection.shutdown = partial(_shut, connection.shutdown, connection)
        await super().shutdown(sockets=sockets)


def _shut(shutdown: Callable[[], None], connection: Any) -> None:
    """uvicorn cannot close a web socket whose client is closing it in this very moment: it would end there, and leave
    the app without its own end, rooms not handed over."""
    from websockets.exceptions import InvalidState

    try:
        shutdown()
    except InvalidState:
        connection.transport.close()


def impatient(kind: type[asyncio.Protocol], seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol `kind`, for which a client has `seconds` for the head of each request: by itself it waits for
    ever, and a crowd that never finishes its handshake would hold every connection there is."""

    class Impatient(kind):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._wait_for_a_head(cast("asyncio.Transport", transport))

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            cast("Any", super()).on_response_complete()
            self._stop_waiting()
            self._wait_for_a_head(cast("Any", self).transport)

        def _wait_for_a_head(self, transport: asyncio.Transport) -> None:
            self._patience = asyncio.get_running_loop().call_later(seconds, self._give_up, transport)

        def _stop_waiting(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

        def _give_up(self, transport: asyncio.Transport) -> None:
            cycle = cast("Any", self).cycle
            # A socket has its own protocol by now, and its own limits.
            if transport.get_protocol() is self and (cycle is None or cycle.response_complete):
                transport.abort()

    return Impatient


def server(app: RoomApp, host: str = "127.0.0.1", port: int = 8000, **more: Any) -> DrainingServer:
    """A uvicorn server with our limits: `await server(app).serve()`. `more` are fields of `uvicorn.Config`."""
    limits = app.door.options.limits
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "http": impatient(AutoHTTPProtocol, app.door.options.request_s),
        "ws_max_size": limits.frame_bytes * 2,
        "ws_per_message_deflate": False,
        "ws_ping_interval": 30.0,
        "ws_ping_timeout": 30.0,
        "timeout_graceful_shutdown": 5,
        "proxy_headers": False,
        "server_header": False,
        "backlog": 4096,  # after a restart thousands come at once
        "log_level": "warning",
        "access_log": False,
        **more,
    }
    return DrainingServer(uvicorn.Config(app, **settings), app)
